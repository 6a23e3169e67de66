"""How texts are read: their shape, words, sentences, scripts, readability and keywords."""
