"""What is planted here is drawn at random and opens nothing; it is put together when the tests run,
so that scanners of repositories do not stumble over it."""

import base64
import itertools
import json
import random
import string
import sysconfig
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shardwright.quality.secrets import (
    Span,
    find_personal_data,
    find_secrets,
    mask,
    measure_personal_data,
    measure_secrets,
)

DRAWN = random.Random(7)


def draw(length, letters=string.ascii_letters + string.digits):
    return "".join(DRAWN.choices(letters, k=length))


def part(value):
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


UPPER = string.ascii_uppercase + string.digits
LOWER = string.ascii_lowercase + string.digits
HEX = "0123456789abcdef"
BODY = base64.encodebytes(DRAWN.randbytes(600)).decode()
KEY = "-----BEGIN RSA " + "PRIVATE KEY-----\n" + BODY + "-----END RSA " + "PRIVATE KEY-----"
HOOKS = "https://hooks.slack.com/services"
TOKEN = ".".join((part({"alg": "HS256"}), part({"sub": "7364529"}), draw(43)))

# kind, and a secret of it
TOKENS = [
    ("aws_access_key", "AKIA" + draw(16, UPPER)),
    ("aws_access_key", "ASIA" + draw(16, UPPER)),
    ("azure_storage_account_access_key", "Account" + "Key=" + draw(86) + "=="),
    ("azure_client_secret", draw(3) + "8Q~" + draw(33)),
    ("github_token", "ghp_" + draw(36)),
    ("github_token", "ghs_" + draw(36)),
    ("github_token", "github_pat_" + draw(22) + "_" + draw(59)),
    ("gitlab_token", "glpat-" + draw(20)),
    ("google_api_key", "AIza" + draw(35)),
    ("google_client_secret", "GOCSPX-" + draw(28)),
    ("hugging_face_token", "hf_" + draw(34, string.ascii_letters)),
    ("json_web_token", TOKEN),
    ("npm_token", "npm_" + draw(36)),
    ("openai_token", "sk-" + draw(20) + "T3Blbk" + "FJ" + draw(20)),
    ("openai_token", "sk-proj-" + draw(74) + "T3Blbk" + "FJ" + draw(74)),
    ("anthropic_api_key", "sk-ant-" + "api03-" + draw(93) + "AA"),
    ("pypi_token", "pypi-" + "AgEIcHlwaS5vcmc" + draw(90)),
    ("sendgrid_api_key", "SG." + draw(22) + "." + draw(43)),
    ("slack_token", f"xoxb-{draw(12, string.digits)}-{draw(13, string.digits)}-{draw(24)}"),
    ("slack_token", f"{HOOKS}/T{draw(8, UPPER)}/B{draw(8, UPPER)}/{draw(24)}"),
    ("stripe_access_key", "sk_" + "live_" + draw(24)),
    ("stripe_access_key", "rk_" + "live_" + draw(99)),
    ("telegram_bot_token", draw(9, "123456789") + ":AA" + draw(33)),
    ("private_key", KEY),
    ("private_key", KEY.replace("RSA ", "")),
    ("private_key", KEY.replace("\n", "\\n")),
    ("private_key", KEY.replace("\n", '\\n"\n    "')),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "secret"), TOKENS)
@pytest.mark.parametrize("around", ['é x = "{}"\r\n', "{}", "f({}, y)", "# see {}\nz", "A={}\n"])
def test_planted_secrets_are_found(kind, secret, around):
    text = around.format(secret)
    start = len(around.partition("{}")[0].encode())
    (span,) = find_secrets(text)
    assert (span.start, span.stop) == (start, start + len(secret)), text.encode()[
        span.start : span.stop
    ]
    assert span.kind == kind
    assert measure_secrets(text.encode()) == {"secrets": 1.0}


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ('password = "hunt3r-2Kx"', "hunt3r-2Kx"),
        ("DB_PASSWORD: 'u8#Kd92!vv'", "u8#Kd92!vv"),
        ('"password": "zx81Zx82k"', "zx81Zx82k"),
        ('char pwd[] = "q8w7e6zz9";', "q8w7e6zz9"),
        ('let passwd: string = `q8w7e6zz9`', "q8w7e6zz9"),
        ("if password == 'q8w7e6zz9':", "q8w7e6zz9"),
        ('api_key="9f8a7c6b5d4e3f2a1b0c9d8e7f6a5b4c"', "9f8a7c6b5d4e3f2a1b0c9d8e7f6a5b4c"),
        ('client_secret => "Zk3vQ8mN1xR7tB5wY2cL"', "Zk3vQ8mN1xR7tB5wY2cL"),
        ("export GITHUB_TOKEN=Zk3vQ8mN1xR7tB5wY2cL\n", "Zk3vQ8mN1xR7tB5wY2cL"),
        ('aws_secret = "' + (aws := draw(40)) + '"', aws),
        ("https://maria:q8w7e6zz9@db.acme.io/x", "q8w7e6zz9"),
        ('twilio = "' + (sid := "AC" + draw(32, HEX)) + '"', sid),
        ('mailchimp("' + (key := draw(32, LOWER) + "-us12") + '")', key),
        ('discord.run("' + (bot := "M" + draw(23) + "." + draw(6) + "." + draw(27)) + '")', bot),
    ],
)  # fmt: skip
def test_secrets_that_need_a_name_beside_them(text, secret):
    (span,) = find_secrets(text)
    assert text[span.start : span.stop] == secret


@pytest.mark.parametrize(
    "text",
    [
        "",
        "key = 'AKIAIOSFODNN7EXAMPLE'",
        "secret = 'wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY'",
        "id = 'AKIA" + draw(20, UPPER) + "'",
        "x = 'ZAKIA" + draw(16, UPPER) + "'",
        "ghp_" + "x" * 36,
        "ghp_" + draw(12),
        "if '-----BEGIN RSA PRIVATE KEY-----' in text:\n    load(text)\n",
        "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
        "headers = ['-----BEGIN PRIVATE KEY-----', '-----BEGIN EC PRIVATE KEY-----']\n" + BODY,
        "-----BEGIN PUBLIC KEY-----\n" + BODY + "-----END PUBLIC KEY-----",
        "password = 'changeme'",
        "password = 'password123'",
        "password = 'hunter'",
        "password = '${DB_PASSWORD1}'",
        "password = '<your-password-1>'",
        "password = get_password('q8w7e6zz9')",
        "password = os.environ['DB_PASSWORD2']",
        "password_field = 'id_password_2'",
        "token = 'Bearer'",
        "token_url = 'https://auth.io/oauth2/token'",
        "token: 'next-page-2'",
        "token: 'orders/items/v12-33'",
        "password = 'a1b2{c}3d4e'",
        "password = '1k2k1k2k'",
        "api_key = 'k1z1k1z1k1z1k1z1'",
        "api_key = '3d104ea0be48564b'",
        "secret_name = 'my-app-secret-2'",
        "secret = '550e8400-e29b-41d4-a716-446655440000'",
        "nextToken = 'Zk3vQ8mN1xR7tB5wY2cL'",
        "PASSWORD_CHANGED = '2024-01-02T03:04:05'",
        "https://user:password@host/",
        "https://user:{password}@host/",
        "https://api.io/x:y/z@2",
        "def tokenize(secret, password): pass",
        "eyJhbGciOiJIUzI1NiJ9",
        "AC" + draw(32, HEX),
        "TOKEN=$(cat token)\nTOKEN=tokenize_the_whole_string\n",
    ],
)
def test_what_looks_like_secrets(text):
    assert find_secrets(text) == []


PERSONAL = [
    ("email", "maria.lopez@uni-koeln.de"),
    ("email", "j.o'x".replace("'", "_") + "+list@mail.corp.co.uk"),
    ("email", "Kim42@Kernel.ORG"),
    ("ip_address", "93.184.216.34"),
    ("ip_address", "203.0.114.77"),
    ("ip_address", "2a00:1450:4001:82f::200e"),
    ("ip_address", "2001:658:22a:cafe:200:0:0:1"),
    ("phone_number", "+49 30 901820"),
    ("phone_number", "+442079460958"),
    ("phone_number", "+1 (212) 736-5000"),
]


@pytest.mark.parametrize(("kind", "data"), PERSONAL)
@pytest.mark.parametrize(
    "around", ["# é <{}>\r\n", "{}", "x = '{}'", "({}),", "漢 {}.\n", "mail {}; y"]
)
def test_planted_personal_data_are_found(kind, data, around):
    text = around.format(data)
    start = len(around.partition("{}")[0].encode())
    assert find_personal_data(text) == [Span(start, start + len(data), kind)]
    assert measure_personal_data(text.encode()) == {"personal_data": 1.0}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "joe@example.com, ann@mail.example.org, x@corp.example",
        "noreply@github.com 123+kim@users.noreply.github.com",
        "git@github.com:a/b.git ssh://git@host.io/x",
        "https://maria:pw@db.acme.io/ ftp://anna@files.acme.io",
        "info@acme.io support@acme.io python-dev@python.org security@acme.io",
        "a@b.de user@domain.com foo@bar.com you@yourdomain.com",
        "@property\n@app.route('/x')\n@media screen",
        "c = a@b.T + q@self.weight(x)",
        "icon@2x.png style@3x.css package@1.2.3 lodash@^4.17.21",
        "OID_EDDSA = '1.3.101.112' Version: 93.184.216.34",
        "version 93.184.216.34 Chrome/91.0.4472.124 pip>=93.184.216.34",
        "1.2.3.4 8.8.8.8 10.0.0.1 127.0.0.1 192.168.1.77 255.255.255.0 224.0.0.251",
        "192.0.2.55 198.51.100.77 203.0.113.99 169.254.77.88",
        "v93.184.216.34 x-93.184.216.34 93.184.216.34.5 .93.184.216.34 93.184.216 93.184.216.340",
        "93.184.216.0/24",
        "2.5.29.37 1.3.6.1.4.1.311 12.34.56.78 99.99.99.99",
        "M 9.87 3.51.98.32 2.03.5",
        "2001:db8::1 ::1 fe80::1 std::vector 2001:0 2001:zz::1",
        "a + 49 30 901820, x+442079460958, f()+442079460958",
        "+1 212 555 0123 +12345678901 +0000 +00000000000 2024-01-02T03:04:05+0100",
        "+35236450.6 1e+10 +1",
        "+1 999 234 9876 +999 1234 99998",
        "802.11ac 8.4.2.161, Linux 2.6.36.4",
    ],
)
def test_what_looks_like_personal_data(text):
    assert find_personal_data(text) == []


def test_escapes_before_an_address_stay_whole():
    text = r'"Von:\nmaria@uni-koeln.de \u00f6tto@uni-koeln.de"'
    masked = mask(text.encode(), find_personal_data(text)).decode()
    assert masked == r'"Von:\nxxxxx@xxx-xxxxx.xx \u00f6xxx@xxx-xxxxx.xx"'


@pytest.mark.parametrize(
    ("text", "start", "stop", "masked"),
    [
        ("Ab9-_é漢\n\tz", 0, 11, "xx0-_xxxxx\n\tz"[:5] + "xxxxx\n" + "\tz"),
        ("abc", 1, 2, "axc"),
        ("abc", 1, 1, "abc"),
    ],
)
def test_mask(text, start, stop, masked):
    assert mask(text.encode(), [Span(start, stop, "x")]) == masked.encode()


@given(st.text(), st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=4))
def test_mask_keeps_all_but_letters_and_digits(text, places):
    data = text.encode()
    spans = [Span(min(place), max(place), "x") for place in places]
    masked = mask(data, spans)
    assert len(masked) == len(data)
    assert mask(masked, spans) == masked
    inside = {index for span in spans for index in range(span.start, span.stop)}
    for index, (old, new) in enumerate(zip(data, masked, strict=True)):
        if index not in inside or not (chr(old).isalnum() or old >= 0x80):
            assert new == old
        else:
            assert chr(new) == ("0" if chr(old) in string.digits else "x")


ALL = [secret for _, secret in TOKENS] + [data for _, data in PERSONAL]


@given(
    st.lists(
        st.sampled_from([*ALL, "é", " ", "\n", '"', "x = ", "password='q8w7e6zz9'", "@", ".", "+"])
    )
)
def test_spans_are_sorted_and_disjoint_and_nothing_is_found_after_masking(parts):
    text = "".join(parts)
    data = text.encode()
    for find in (find_secrets, find_personal_data):
        spans = find(text)
        assert spans == find(text)
        assert all(a.stop <= b.start for a, b in itertools.pairwise(spans))
        assert all(0 <= span.start < span.stop <= len(data) for span in spans)
        masked = mask(data, spans)
        assert find(masked.decode()) == []
        if find is find_secrets:
            data, text = masked, masked.decode()


def test_masking_leaves_python_that_compiles():
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")) + sorted(
        Path(sysconfig.get_path("stdlib")).glob("test/test_s*.py")
    )
    found = 0
    for file in files:
        data = file.read_bytes()
        if b"coding" in data[:200] and b"utf-8" not in data[:200]:
            continue
        text = data.decode()
        spans = find_secrets(text) + find_personal_data(text)
        found += len(spans)
        masked = mask(data, spans)
        assert [len(line) for line in masked.split(b"\n")] == [
            len(line) for line in data.split(b"\n")
        ]
        if spans:
            compile(masked, str(file), "exec")
    assert found > 50
