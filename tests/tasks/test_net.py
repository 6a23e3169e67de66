"""What the way out lets through: tables of URLs and addresses, against real servers that count who connects."""

import asyncio
import datetime
import ipaddress
import socket
import ssl
import threading
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tasks import net
from tests.faults.processes import until
from tests.receiver import RawServer, Receiver, Reply

PUBLIC = "93.184.215.14"
NOT_ALLOWED = "The address is not allowed: it must be public, on port 80 or 443."


def post(url, *, body=b"{}", headers=None):
    """What one POST came to: the answer, or the error's text."""

    async def go():
        async with net.Client() as client:
            return await client.post(url, body=body, headers=headers or {})

    try:
        return asyncio.run(go())
    except (net.Unreachable, net.ForbiddenUrl) as error:
        return str(error)


@pytest.fixture
def closed(settings):
    """Nothing is opened: as installed."""
    settings.CALLBACK_ALLOWED_NETWORKS = []


@pytest.fixture
def names(monkeypatch):
    """Names that resolve as told; every look-up is counted."""
    known, asked = {}, []
    real = socket.getaddrinfo

    def look_up(host, port, *rest):
        asked.append(host)
        if host not in known:
            return real(host, port, *rest)
        found = [ipaddress.ip_address(address) for address in known[host]]
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (str(address), port, 0, 0))
            if address.version == 6
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (str(address), port))
            for address in found
        ]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    known["asked"] = asked
    return known


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com",
        "https://example.com:443/hook?a=b",
        "HTTPS://Example.COM/",
        "http://example.com.:80/",
        "http://sub_domain.example.com/%20",
        "http://93.184.215.14:8080/",
        "http://[2606:4700::1111]:443/x",
        "https://例え.jp/ü",
        "https://example.com/" + "x" * 2028,
    ],
)
def test_a_url_that_may_be_called(url):
    assert net.check_url(url).scheme in ("http", "https")


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://\uff45xample.com/", "host must be written as example.com."),
        ("http://example。com/", "host must be written as example.com."),
        ("http://①.1.1.1/", "host must be written as 1.1.1.1."),
        ("http://[2606:4700:0::1111]/", "host must be written as [2606:4700::1111]."),
        ("http://[2606:4700::0.0.17.17]/", "host must be written as [2606:4700::1111]."),
        ("http://example.com:080/", "port must be written as 80."),
        ("http://example.com:00443/", "port must be written as 443."),
    ],
)
def test_a_host_and_port_are_written_in_one_way(url, says):
    with pytest.raises(net.ForbiddenUrl) as refused:
        net.check_url(url)

    assert str(refused.value) == f"The URL's {says}"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "begin with"),
        ("example.com/hook", "begin with"),
        ("//example.com/hook", "begin with"),
        ("ftp://example.com/", "begin with"),
        ("file:///etc/passwd", "begin with"),
        ("unix:///run/docker.sock", "begin with"),
        ("javascript:alert(1)", "begin with"),
        ("http://", "begin with"),
        ("http:///hook", "begin with"),
        ("http:/example.com", "begin with"),
        ("http://user@example.com/", "user name"),
        ("http://user:secret@example.com/", "user name"),
        ("http://@example.com/", "user name"),
        ("http://example.com/#part", "fragment"),
        ("http://example.com#", "fragment"),
        ("http://exa mple.com/", "spaces"),
        (" http://example.com/", "spaces"),
        ("http://example.com/\n", "spaces"),
        ("http://example.com/\r\nX-Evil: 1", "spaces"),
        ("http://example.com/\x00", "spaces"),
        ("http://example.com\t/", "spaces"),
        ("http://example.com/\u2028", "spaces"),
        ("http://exam\u200bple.com/", "spaces"),
        ("http://example.com/\ud800", "spaces"),
        ("http://example.com\\@127.0.0.1/", "backslashes"),
        ("http://example.com:/", "not valid"),
        ("http://example.com:0/", "not valid"),
        ("http://example.com:65536/", "not valid"),
        ("http://example.com:99999999/", "not valid"),
        ("http://example.com:+80/", "not valid"),
        ("http://example.com:8_0/", "not valid"),
        ("http://example.com:٨٠/", "not valid"),
        ("http://example.com:80:80/", "not valid"),
        ("http://a..b/", "not valid"),
        ("http://.example.com/", "not valid"),
        ("http://*/", "not valid"),
        ("http://x%2e127.0.0.1/", "not valid"),
        ("http://" + "a" * 64 + ".com/", "not valid"),
        ("http://" + "a." * 127 + "com/", "not valid"),
        ("http://2130706433/", "not valid"),
        ("http://0x7f000001/", "not valid"),
        ("http://0x7f.1/", "not valid"),
        ("http://017700000001/", "not valid"),
        ("http://0177.0.0.1/", "not valid"),
        ("http://127.1/", "not valid"),
        ("http://127.0.0.1./", "not valid"),
        ("http://127.0.0.0x1/", "not valid"),
        ("http://256.0.0.1/", "not valid"),
        ("http://1.2.3.4.5/", "not valid"),
        ("http://[::1/", "not valid"),
        ("http://[::1]x/", "not valid"),
        ("http://[127.0.0.1]/", "not valid"),
        ("http://[fe80::1%25eth0]/", "not valid"),
        ("http://::1/", "not valid"),
        ("https://example.com/" + "x" * 2029, "2048"),
    ],
)
def test_a_url_that_is_refused_as_written(url, says):
    with pytest.raises(net.ForbiddenUrl, match=says):
        net.check_url(url)


# What nobody outside may be sent to, as a name may resolve to it.
FORBIDDEN = [
    "0.0.0.0", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.8.8.8", "169.254.169.254", "172.16.0.1", "192.0.0.1",
    "192.0.2.1", "192.168.0.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "224.0.0.1", "240.0.0.1",
    "255.255.255.255", "::", "::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
    "::ffff:0:7f00:1", "64:ff9b::7f00:1", "64:ff9b::a00:1", "64:ff9b:1::1", "100::1", "2001::1", "2001:db8::1",
    "2002:7f00:1::1", "2002:a00:1::", "3fff::1", "5f00::1", "fc00::1", "fd00:ec2::254", "fe80::1", "fec0::1", "ff02::1",
    "ff0e::1",
]  # fmt: skip
ALLOWED = [PUBLIC, "1.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101", "2002:101:101::1"]


@pytest.mark.parametrize("address", FORBIDDEN)
def test_an_address_that_users_may_not_name(address):
    assert not net.permits(address, 443, [])


@pytest.mark.parametrize("address", ALLOWED)
def test_a_public_address_is_allowed_on_the_webs_ports_only(address):
    assert net.permits(address, 80, [])
    assert net.permits(address, 443, [])
    assert not any(net.permits(address, port, []) for port in (0, 22, 25, 5432, 6379, 8080))


def test_an_opened_network_is_open_on_every_port_and_in_every_spelling():
    inside = [ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00::/8")]

    assert net.permits("10.1.2.3", 8080, inside)
    assert net.permits("::ffff:10.1.2.3", 8080, inside)
    assert net.permits("fd00::1", 8080, inside)
    assert not net.permits("10.2.0.1", 80, inside)


@pytest.mark.parametrize(
    "answer", [[address] for address in FORBIDDEN] + [[PUBLIC, "127.0.0.1"], ["127.0.0.1", PUBLIC]]
)
@pytest.mark.parametrize("port", ["", ":443"])
def test_a_name_that_leads_inside_is_never_connected_to(closed, names, monkeypatch, answer, port):
    made = []
    monkeypatch.setattr(socket.socket, "connect", lambda *_: made.append(_))
    monkeypatch.setattr(asyncio.SelectorEventLoop, "sock_connect", lambda *_: made.append(_))
    names["inside.example.com"] = answer

    assert post(f"http://inside.example.com{port}/") == NOT_ALLOWED
    assert made == []


LOOPBACK = [
    "127.0.0.1", "localhost", "LOCALHOST", "localhost.", "127.0.0.2", "0.0.0.0", "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]", "[::127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[::1]", "[::]", "①②⑦.⓪.⓪.①",
    "ⓛocalhost", "127。0。0。1", "2130706433", "0x7f000001", "017700000001", "0x7f.1", "0177.1", "127.1", "127.0.1",
    "127.0.0.1.", "0", "0x7f.0x0.0x0.0x1", "127.0.0.01", "1", "00000177.0.0.1",
]  # fmt: skip


@pytest.mark.parametrize("host", LOOPBACK)
def test_no_spelling_of_loopback_is_connected_to(closed, host):
    with Receiver() as receiver:
        said = post(f"http://{host}:{receiver.port}/hook")

    refusals = (NOT_ALLOWED, "The URL's host is not valid.", "The host name could not be resolved.")
    assert said in refusals or said.startswith("The URL's host must be written as ")
    assert receiver.connections == 0


def test_a_name_of_loopback_is_refused_on_the_webs_ports_too(closed, names):
    names["rebound.example.com"] = ["127.0.0.1"]

    assert post("http://rebound.example.com/") == NOT_ALLOWED
    assert post("https://127.0.0.1/") == NOT_ALLOWED


def test_a_public_address_is_refused_on_other_ports(closed, names):
    names["public.example.com"] = [PUBLIC]

    assert post("http://public.example.com:8080/") == NOT_ALLOWED
    assert post(f"http://{PUBLIC}:25/") == NOT_ALLOWED


def test_what_is_connected_to_is_what_was_checked(names):
    names["once.example.com"] = ["127.0.0.1"]
    with Receiver() as receiver:
        answer = post(f"http://once.example.com:{receiver.port}/hook")

    assert answer.status == 200
    assert names["asked"] == ["once.example.com"]
    assert receiver.requests[0].headers["host"] == f"once.example.com:{receiver.port}"


def test_no_socket_is_made_for_a_forbidden_address_whatever_the_resolver_says(closed, monkeypatch):
    async def careless(self, host, port=0, family=0):
        return [{"hostname": host, "host": "127.0.0.1", "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}]

    monkeypatch.setattr(net.Resolver, "resolve", careless)
    with Receiver() as receiver:
        said = post(f"http://careless.example.com:{receiver.port}/")

    assert said == NOT_ALLOWED
    assert receiver.connections == 0


def test_a_redirect_is_not_followed():
    with Receiver() as inside, Receiver([Reply(307, {"location": inside.url})]) as receiver:
        assert post(receiver.url).status == 307

    assert inside.connections == 0


def test_proxies_cookies_and_logins_of_the_environment_are_not_used(monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login me password secret\n")
    monkeypatch.setenv("HOME", str(tmp_path))

    async def twice(url):
        async with net.Client() as client:
            return [await client.post(url, body=b"{}", headers={}) for _ in range(2)]

    with Receiver([Reply(200, {"set-cookie": "a=b"})]) as receiver, Receiver() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("http_proxy", proxy.url)
        asyncio.run(twice(receiver.url))

    assert proxy.connections == 0
    assert [sent.headers["cookie"] or sent.headers["authorization"] for sent in receiver.requests] == [None, None]


def test_we_say_who_we_are():
    with Receiver() as receiver:
        post(receiver.url, body=b'{"a":1}', headers={"content-type": "application/json"})

    (sent,) = receiver.requests
    assert sent.headers["user-agent"] == f"Counterfoil/{net.VERSION}"
    assert sent.headers["content-type"] == "application/json"
    assert sent.body == b'{"a":1}'


def test_two_kilobytes_of_an_endless_answer_are_read():
    with Receiver([Reply(200, body=b"x" * 1000, endless=True)]) as receiver:
        answer = post(receiver.url)

    assert (answer.status, answer.body) == (200, b"x" * 2048)


def test_two_kilobytes_of_a_huge_answer_are_read():
    with Receiver([Reply(500, body=b"x" * 5_000_000)]) as receiver:
        answer = post(receiver.url)

    assert (answer.status, answer.body, answer.headers[-23:]) == (500, b"x" * 2048, "content-length: 5000000")


def test_a_compressed_answer_stays_compressed():
    with Receiver([Reply(200, {"content-encoding": "gzip"}, b"\x1f\x8bwhatever")]) as receiver:
        assert post(receiver.url).body == b"\x1f\x8bwhatever"


@pytest.mark.parametrize("headers", [{"x": "y" * 10_000}, {f"x-{n}": "y" for n in range(200)}])
def test_an_answer_with_too_much_of_a_head_is_refused(headers):
    with Receiver([Reply(200, headers)]) as receiver:
        assert post(receiver.url) == "The answer was not valid HTTP."


def test_the_status_counts_when_the_body_never_ends(settings):
    settings.CALLBACK_TIMEOUT_SECONDS = 0.2
    with RawServer(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf") as url:
        assert post(url) == net.Answer(200, b"half", headers="content-length: 100")


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nx-half: "])
def test_who_does_not_answer_in_time_is_not_waited_for(settings, answer):
    settings.CALLBACK_TIMEOUT_SECONDS = 0.2
    with RawServer(answer) as url:
        started = time.monotonic()
        said = post(url)

    assert said == "No answer within 0.2 s."
    assert time.monotonic() - started < 1


def test_a_slow_name_server_is_not_waited_for(settings, monkeypatch):
    settings.CALLBACK_TIMEOUT_SECONDS = 0.1
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: time.sleep(2) or [])

    started = time.monotonic()

    assert post("http://slow.example.com/") == "No answer within 0.1 s."
    assert time.monotonic() - started < 1.5


def test_slow_names_of_one_leave_the_look_ups_of_another_alone(settings, monkeypatch):
    settings.CALLBACK_TIMEOUT_SECONDS = 1
    plain, over = socket.getaddrinfo, threading.Event()
    monkeypatch.setattr(net, "LOOKUPS_EACH", 3)
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *rest: over.wait(5) and [] if "slow" in host else plain(host, *rest)
    )

    async def all_at_once():
        async with net.Client() as client:
            urls = [f"http://{number}.slow.example.com/" for number in range(5)]
            ways = [client.post(url, body=b"", headers={}, of="one") for url in urls]
            other = client.post(receiver.url.replace("127.0.0.1", "localhost"), body=b"", headers={}, of="another")
            return await asyncio.gather(*ways, other, return_exceptions=True)

    try:
        with Receiver() as receiver:
            *slow, other = asyncio.run(all_at_once())
            *later, _ = asyncio.run(all_at_once())
    finally:
        over.set()

    assert [type(each) for each in slow] == [net.Unreachable] * 3 + [net.Busy] * 2
    assert {type(each) for each in later} == {net.Busy}
    assert other.status == 200
    until(lambda: not net._looking, within=5)


def test_errors_can_be_read(monkeypatch):
    with Receiver() as receiver:
        plain = receiver.port
    assert post(f"http://127.0.0.1:{plain}/") == "The connection was refused."
    with RawServer(b"nonsense\r\n\r\n") as url:
        assert post(url) == "The answer was not valid HTTP."
    with RawServer(b"", hang=False) as url:
        assert post(url) == "The connection was closed before an answer came."
    with Receiver() as receiver:
        assert post(receiver.url.replace("http:", "https:")).startswith("TLS failed: ")

    def unknown(*_):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert post("http://nowhere.example.com/") == "The host name could not be resolved."


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path):
    with Receiver(tls=self_signed(tmp_path)) as receiver:
        said = post(receiver.url)

    assert said == "The certificate is not valid: self-signed certificate."
    assert receiver.requests == []


def self_signed(folder):
    """A TLS server context that no authority knows."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    day = datetime.timedelta(days=1)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - day)
        .not_valid_after(now + day)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "server.pem").write_bytes(secret + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "server.pem")
    return context


@pytest.mark.parametrize(
    "address", ["192.0.0.192", "192.0.0.8", "192.88.99.1", "168.63.129.16", "::ffff:168.63.129.16"]
)
def test_addresses_that_are_global_by_name_only_are_not_called(address):
    assert not net.permits(address, 80, [])
