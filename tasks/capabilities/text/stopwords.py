"""Words that say little, in the seven languages that have a list here."""

STOPWORDS = {
    language: frozenset(words.split())
    for language, words in {
        "en": """
            a about above after again against all also am an and any are aren't as at be because been before being below
            between both but by can can't cannot could couldn't did didn't do does doesn't doing don't down during each
            few for from further had hadn't has hasn't have haven't having he he's her here hers herself him himself his
            how however i i'd i'll i'm i've if in into is isn't it it's its itself just let's may me might more most
            must my myself no nor not now of off on once one only or other ought our ours ourselves out over own per
            rather same shall she she's should shouldn't since so some such than that that's the their theirs them
            themselves then there there's these they they'd they'll they're they've this those through to too under
            until up upon us very was wasn't we we'd we'll we're we've were weren't what what's when where which while
            who whom whose why will with within without won't would wouldn't yet you you'd you'll you're you've your
            yours yourself yourselves
        """,
        "de": """
            aber alle allem allen aller alles als also am an andere anderen auch auf aus bei beim bin bis bist da dabei
            damit dann das dass dein dem den denn der des dessen die dies diese diesem diesen dieser dieses doch dort du
            durch ein eine einem einen einer eines er es etwas euch euer für gegen hab habe haben hat hatte hatten hier
            hin hinter ich ihm ihn ihnen ihr ihre ihrem ihren ihrer im in ins ist ja jede jedem jeden jeder jedes jetzt
            kann kein keine keinem keinen keiner können könnte machen man mehr mein meine mich mir mit muss müssen nach
            nicht nichts noch nun nur ob oder ohne sehr sein seine seinem seinen seiner seit sich sie sind so solche
            soll sollte sondern sonst über um und uns unser unter viel vom von vor war waren warst was weil welche
            wenn wer werde werden wie wieder will wir wird wirst wo wurde wurden würde würden zu zum zur zwar zwischen
        """,
        "fr": """
            à ai aient ainsi alors après as au aussi autre aux avait avant avec avez avoir avons c'est ce ceci cela ces
            cet cette ceux chaque comme d'un d'une dans de des donc dont du elle elles en encore entre est et étaient
            était été être eu eux fait faire il ils j'ai je la là le les leur leurs lui ma mais me même mes moi moins
            mon n'a n'est ne ni nos notre nous on ont ou où par pas peu peut plus pour pourquoi qu'il qu'elle qu'on
            quand que quel quelle quelles quels qui s'est sa sans se sera ses si son sont sous sur ta te tes toi ton
            tous tout toute toutes très tu un une vers vos votre vous y
        """,
        "es": """
            a al algo alguna algunas alguno algunos ante antes aquel aquella así aún aunque bajo bien cada casi como con
            contra cual cuando cuál de del desde donde dos durante e el él ella ellas ellos en entre era eran es esa
            esas ese eso esos está están esta estas este esto estos fue fueron ha había han hasta hay la las le les lo
            los más me mi mientras mis muy nada ni no nos nosotros nuestra nuestro o os otra otras otro otros para pero
            poco por porque puede pueden que qué quien quién se sea ser si sí sido sin sobre son su sus también tan
            tanto te tiene tienen toda todas todo todos tu tus un una uno unos usted ustedes y ya yo
        """,
        "it": """
            a ad agli ai al alla alle allo anche ancora avere aveva c'è che chi ci ciò col come con contro cosa così da
            dagli dai dal dalla dalle dallo degli dei del dell della delle dello dentro di dopo dove due e è ed era
            erano essere fa fino fra già gli ha hai hanno ho i il in io l la le lei li lo loro lui ma me mi mia mio
            molto ne negli nei nel nella nelle nello noi non nostra nostro o ogni per perché però più poi prima può
            qual quale quando quanto quella quelle quelli quello questa queste questi questo qui se sei sempre senza si
            sia siamo siete solo sono sopra sotto sta stata stato su sua sue sugli sui sul sulla suo suoi ti tra tu tua
            tuo tutta tutte tutti tutto un una uno vi voi
        """,
        "pt": """
            a à ao aos as às até cada com como da das de dela dele deles depois do dos e é ela elas ele eles em entre
            era eram essa essas esse esses esta está estão estas estava este estes eu foi foram há isso isto já la lhe
            lhes lo mais mas me mesmo meu meus minha muito muitos na não nas nem no nos nós nossa nosso num numa o os ou
            para pela pelas pelo pelos pode podem por porque qual quando que quem se sem ser será seu seus só sobre sua
            suas também te tem têm tinha toda todas todo todos tu um uma umas uns você vocês
        """,
        "nl": """
            aan al alle alles als altijd ander andere ben bij daar dan dat de der deze die dit doch doen door dus een
            eens en er ge geen geweest haar had heb hebben heeft hem het hier hij hoe hun iemand iets ik in is ja je
            kan kon kunnen maar me meer men met mij mijn moet na naar niet niets nog nu of om omdat onder ons ook op
            over reeds te tegen toch toen tot u uit uw van veel voor want waren was wat we wel werd wezen wie wij wil
            worden wordt zal ze zei zelf zich zij zijn zo zonder zou
        """,
    }.items()
}
