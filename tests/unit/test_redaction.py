"""Redaction by key name and in text."""

from __future__ import annotations

import time
from collections import OrderedDict, UserDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hft_otel import secret_names
from hft_otel.redaction import BEYOND, MAX_NAMES, MAX_TEXT, MAX_VALUES, SECRET, Redactor
from tests.unit.endless import Endless


def words(text: str) -> list[str]:
    return text.split()


SECRET_NAMES = words("""
    api_key apikey apiKey API_KEY ApiKey APIKey X-MEXC-APIKEY DD-API-KEY api_keys api_key_2 apiKey2 http.api.key
    secret secret_key secretKey SECRETKEY api_secret apisecret aws_secret_access_key client_secret secrets
    signature X-Signature sign KC-API-SIGN OK-ACCESS-SIGN sig hmac
    passphrase KC-API-PASSPHRASE password passwd user_pwd db.password password1 password_hash
    authorization Proxy-Authorization auth auth_header cookie Set-Cookie jwt otp
    token access_token accessToken refreshtoken x_auth_token userToken api_tokens
    private_key privateKey privatekey mnemonic seed seed_phrase seedPhrase wallet_seed recovery_phrase credentials
    credential listenKey OK-ACCESS-KEY webhook_url connection_string
    api_key_mexc API_KEY_BINANCE apikey_main api_key_prod_1 apiKeyMexc api_keys_mexc api_key_value exchanges.api_key.okx
    api_secret_gateio secret_key_binance secret_value client_secret_value access_token_mexc api_token_mexc
    refreshTokenOld bot_token_alerts api_sign_v2 password_prod password_new DB_PASSWORD_TEST api_passphrase_okx
    hmac_sha256 hmac-sha-256 HmacSHA256 hmacSha512 X-Signature-SHA256 signature_sha256 X-Signature-Ed25519 bearer
    Bearer private_key_pem private_key_base64 privateKeyB64 priv_key secret_b64 seed_hex bip39_seed bip39Seed
    cookie_mexc mnemonic_main jwt_mexc db_pass DB_PASS user_pass webhook_url_alerts recovery_phrase_main otp_code authCode
""")
INNOCENT_NAMES = words("""
    token_symbol tokens token_price base_token quoteToken token0 token1 next_token signal design sign_count signed
    price_sign assignment seed_round random_seed seeds seed1 key order_key public_key idempotency_key access_key_id
    author authority passport pass bypass compass keyboard monkey secretary message exchange symbol url name id
    session_id order_id client_order_id user certificate client_key hash header connection phrase words string 1 _ -
    token_pair token_value token_price_usd tokenAmount key_level sort_key key_mexc sign_change seed_mexc token_0_hash
    secret_volume security_token_listing user_token_balance id_token_pair exchange_tokens_listed sig_strength auth_ms
    api_key_id apiKeyId api_key_count api_keys_len api_key_valid api_key_age_days api_key_expiry listen_key_ttl_s
    access_token_expires_in refreshTokenExpiresAt password_changed_at password_policy secret_name secret_rotation
    signature_type signatureType signature_ms signature_latency_p99 signature_error signature_version hmac_algorithm
    client_secret_status api_key_error_code InvalidSignatureError SignatureException base64 sha256 sha256_hash md5 bip39 base64_size
""")
TRADING = {"exchange": "mexc", "symbol": "BTC_USDT", "order_id": 17, "price": 1.5}


class Shout(str):
    pass


class Kind(StrEnum):
    API_KEY = "api_key"
    SIDE = "side"


@dataclass
class Account:
    user: str
    api_key: str


class Struct(msgspec.Struct):
    user: str
    api_key: str


@pytest.mark.parametrize("name", SECRET_NAMES)
def test_a_secret_is_known_by_its_key(name: str) -> None:
    assert Redactor().redact({"symbol": "BTC", name: "hunter2"}) == {"symbol": "BTC", name: SECRET}


@pytest.mark.parametrize("name", INNOCENT_NAMES)
def test_a_key_that_only_looks_like_a_secret_stays(name: str) -> None:
    context = {name: "plain"}
    assert Redactor().redact(context) is context


def test_extra_keys_count_in_any_style() -> None:
    redactor = Redactor(["account-number"])
    given_context = {"accountNumber": 1, "ACCOUNT_NUMBER": 2, "account.number": 3, "account": 4}
    expected = {"accountNumber": SECRET, "ACCOUNT_NUMBER": SECRET, "account.number": SECRET, "account": 4}
    assert redactor.redact(given_context) == expected
    assert redactor.redact_text("accountNumber=12 account=4") == f"accountNumber={SECRET} account=4"


def test_a_clean_mapping_is_handed_back_as_it_is() -> None:
    redactor = Redactor()
    nested = {**TRADING, "levels": [[1.0, 2.0], (3, {"bid": b"x"})], "at": object(), "note": "a: b=c"}
    for context in (TRADING, nested, {}, OrderedDict(TRADING), UserDict(TRADING)):
        for _ in range(2):
            assert redactor.redact(context) is context


def test_redaction_leaves_the_callers_objects_alone() -> None:
    inner = {"token": "t"}
    context = {"a": [inner], "b": 1}
    assert Redactor().redact(context) == {"a": [{"token": SECRET}], "b": 1}
    assert context == {"a": [{"token": "t"}], "b": 1}


@pytest.mark.parametrize("empty", [None, True, False, "", b"", {}, [], ()])
def test_where_there_is_no_secret_it_shows_that_there_is_none(empty: object) -> None:
    context = {"api_key": empty}
    assert Redactor().redact(context) is context


@pytest.mark.parametrize("value", [5, 1.5, object(), {"a": 1}, ["x"], b"x", Shout("x")])
def test_a_secret_of_any_type_is_replaced(value: object) -> None:
    assert Redactor().redact({"password": value}) == {"password": SECRET}


@pytest.mark.parametrize(
    "holder",
    [
        {"api_key": "hunter2"},
        OrderedDict(api_key="hunter2"),
        UserDict(api_key="hunter2"),
        [{"api_key": "hunter2"}],
        ({"deep": [{"api_key": "hunter2"}]},),
        Account("ann", "hunter2"),
        Struct("ann", "hunter2"),
        [Account("ann", "hunter2")],
        {"api_key=hunter2"},
        "Account(user='ann', api_key='hunter2')",
        Shout("api_key=hunter2"),
        b"api_key=hunter2",
        bytearray(b"api_key=hunter2"),
        {b"api_key": "hunter2"},
        {Shout("api_key"): "hunter2"},
        {Kind.API_KEY: "hunter2"},
    ],
    ids=repr,
)
def test_a_secret_is_found_inside(holder: Any) -> None:
    redacted = Redactor().redact({"holder": holder})
    assert "hunter2" not in repr(redacted)
    assert SECRET in repr(redacted)


def test_attrs_objects_are_looked_into() -> None:
    class Attribute:
        name = "api_key"

    class Attrs:  # what attrs makes, without attrs
        __attrs_attrs__ = (Attribute,)
        api_key = "hunter2"

    assert Redactor().redact({"x": Attrs()}) == {"x": {"api_key": SECRET}}


class Broken(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        raise RuntimeError

    def __iter__(self) -> Iterator[str]:
        raise RuntimeError

    def __len__(self) -> int:
        return 1


class Unreadable:
    __dataclass_fields__ = ("gone",)


class Hostile:
    def __hash__(self) -> int:
        return hash("symbol")

    def __eq__(self, other: object) -> bool:
        raise RuntimeError


def deep(levels: int) -> dict[str, Any]:
    context: dict[str, Any] = {"token": "hunter2"}
    for _ in range(levels):
        context = {"x": context}
    return context


def test_odd_input_raises_nothing_and_shows_nothing() -> None:
    redactor = Redactor()
    redactor.redact({"symbol": "BTC"})
    cycle: list[Any] = [{"token": "hunter2"}]
    cycle += [cycle] * 100
    assert redactor.redact(Broken()) == {"redaction_failed": SECRET}
    assert redactor.redact({"x": Broken()}) == {"x": SECRET}
    assert redactor.redact({"x": Unreadable()}) == {"x": SECRET}
    for context in (
        {"x": cycle},
        deep(15),
        deep(500),
        {1: 2, None: 3, (1, 2): 4, 1.5: [5]},
        {Hostile(): "x"},
    ):
        assert "hunter2" not in repr(redactor.redact(context))
    assert redactor.redact({1: 2, None: 3}) == {1: 2, None: 3}
    assert redactor.redact_text(None) == SECRET  # type: ignore[arg-type]
    assert redactor.redact(None) == {"redaction_failed": SECRET}  # type: ignore[arg-type]


def test_wide_input_is_looked_at_for_a_bounded_time() -> None:
    wide: Any = {"token": "hunter2"}
    for _ in range(12):
        wide = [wide] * 10  # 10**12 leaves
    started = time.monotonic()
    redacted = Redactor().redact({"a": wide})
    assert time.monotonic() - started < 10
    assert "hunter2" not in repr(redacted)


@pytest.mark.parametrize(
    "value",
    [
        Endless(),
        {f"k{number}": number for number in range(1_000_000)},
        ["a=b"] * 1_000_000,
        b"a=b,token=c," * 2_000_000,
        "a=1,key=c," * 2_000_000,
        [["price", "1"]] * 1_000_000,
    ],
    ids=["endless", "mapping", "texts", "bytes", "text", "pairs"],
)
def test_large_values_are_looked_at_up_to_a_bound(value: Any) -> None:
    redactor = Redactor()
    started = time.process_time()
    clean = redactor.redact({"token": "hunter2", "v": value})
    assert (
        time.process_time() - started < 2
    )  # the mapping took 14 seconds, all the others for ever or several
    assert clean["token"] == SECRET
    rest = clean["v"]
    assert len(rest) <= MAX_VALUES + 1
    assert (
        rest in (SECRET, SECRET.encode()) or (rest[BEYOND] if isinstance(rest, dict) else rest[-1]) == SECRET
    )
    with pytest.raises(ValueError, match="more than is looked at"):
        redactor.redact({"v": value}, whole=True)


def test_a_long_text_is_searched_up_to_a_bound() -> None:
    text = "token=hunter2 " + "x" * MAX_TEXT + "token=hunter2"
    clean = Redactor().redact_text(text)
    assert "hunter2" not in clean
    assert len(clean) < MAX_TEXT + 10
    assert Redactor().redact_text("x" * 2 * MAX_TEXT) == "x" * 2 * MAX_TEXT


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([("X-API-KEY", "hunter2"), ("a", "b")], [("X-API-KEY", SECRET), ("a", "b")]),
        ([["Authorization", "Bearer hunter2"]], [["Authorization", SECRET]]),
        (((b"x-api-key", b"hunter2"), (b"a", b"b")), ((b"x-api-key", SECRET), (b"a", b"b"))),
        ((b"X-API-KEY", b"hunter2"), (b"X-API-KEY", SECRET)),
        ([("passphrase", ["hunter2", 1])], [("passphrase", SECRET)]),
        ([("order-key", "x")], [("order-key", SECRET)]),
        ([("token", None)], [("token", None)]),
    ],
)
def test_the_second_of_a_pair_is_a_secret_where_the_first_names_one(value: Any, expected: Any) -> None:
    assert Redactor(["Order-Key"]).redact({"headers": value}) == {"headers": expected}


@pytest.mark.parametrize(
    "value", [["token"], ["sell", "token", "x"], [["65000.1", "0.5"], ["65000.2", "1"]], ["buy", "token"]]
)
def test_other_lists_stay_and_their_texts_are_no_names_to_remember(value: Any) -> None:
    redactor = Redactor()
    assert redactor.redact({"v": value})["v"] is value
    assert redactor._clean_names == {"v"}


def test_an_event_s_name_is_remembered_where_it_holds_no_secret() -> None:
    redactor = Redactor()
    assert redactor.redact_event("order: sent") == "order: sent"
    assert redactor.redact_event("password=abc") == "password=***"
    assert redactor.redact_event("x" * 1000) == "x" * 1000
    assert redactor.clean_events == {"order: sent"}
    for number in range(MAX_NAMES + 5):
        redactor.redact_event(f"order {number}")
    assert len(redactor.clean_events) <= MAX_NAMES


def test_a_whole_order_book_passes_unchanged() -> None:
    context = {"bids": [[float(number), 1.0] for number in range(10_000)]}
    assert Redactor().redact(context) is context


def test_names_made_at_run_time_do_not_fill_the_memory() -> None:
    redactor = Redactor()
    for number in range(MAX_NAMES * 2 + 5):
        redactor.redact({f"order_{number}_x": 1, f"k{number}_secret": 1})
    assert len(redactor._clean_names) <= MAX_NAMES
    assert len(redactor._secret_names) <= MAX_NAMES
    redactor.redact({"x" * 10_000: 1})
    assert max(map(len, redactor._clean_names)) < 100


class ChangesOnce(UserDict[str, Any]):
    changed = False

    def items(self) -> Any:
        if not self.changed:
            self.changed = True
            raise RuntimeError("dictionary changed size during iteration")
        return super().items()


def test_a_mapping_that_another_thread_changes_meanwhile_is_redacted_all_the_same() -> None:
    assert Redactor().redact(ChangesOnce(token="hunter2", symbol="BTC")) == {"token": SECRET, "symbol": "BTC"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("api_key=abc", "api_key=***"),
        ("signature: abc", "signature: ***"),
        ("api key: abc, side: buy", "api key: ***, side: buy"),
        ("order key: abc", "order key: abc"),
        ("Authorization: Bearer abc.def", "Authorization: ***"),
        ("got 401 with Bearer abcdefghij.kl", "got 401 with Bearer ***"),
        ("GET /order?symbol=A&signature=ff&ts=1", "GET /order?symbol=A&signature=***&ts=1"),
        ("?signature=&ts=1", "?signature=&ts=1"),
        ("postgres://u:p@h/db", "postgres://u:***@h/db"),
        ("url=postgres://u:p@ss@h/db x@y", "url=postgres://u:***@h/db x@y"),
        ("redis://:pw@h:1", "redis://:***@h:1"),
        ("https://h:8080/a@b", "https://h:8080/a@b"),
        ('{"api_key": "abc", "x": 1}', '{"api_key": "***", "x": 1}'),
        ("{'secret': 'a b', 'b': 2}", "{'secret': '***', 'b': 2}"),
        (r"{\"api_key\": \"abc\", \"q\": 1}", r"{\"api_key\": \"***\", \"q\": 1}"),
        (r'password="a\"b" x', 'password="***" x'),
        ("[('X-MEXC-APIKEY', 'abc'), ('a', 'b')]", "[('X-MEXC-APIKEY', '***'), ('a', 'b')]"),
        ("[(b'authorization', b'Basic q')]", "[(b'authorization', b'***')]"),
        ("('secret', x)", "('secret', x)"),
        ("mnemonic: abandon ability able\nnext", "mnemonic: ***\nnext"),
        ("Cookie: a=b; c=d", "Cookie: ***"),
        ("cookie_mexc: a=b; c=d", "cookie_mexc: ***"),
        ("mnemonic_main: abandon ability able\nnext", "mnemonic_main: ***\nnext"),
        ("passwordSalt: a, side: buy", "passwordSalt: ***, side: buy"),
        ("API_KEY_MEXC=abc retry=3", "API_KEY_MEXC=*** retry=3"),
        ("bearer=abc", "bearer=***"),
        ("signature_ms=4 api_key_id: 7", "signature_ms=4 api_key_id: 7"),
        ("secret=[1, 2, 'x'] z", "secret=*** z"),
        ("credentials: {'u': 'a'} b", "credentials: *** b"),
        ("secret=None token=true", "secret=None token=true"),
        ("api_key=*** x", "api_key=*** x"),
        ('password = "', 'password = "'),
        ("password=", "password="),
        ("=:, =", "=:, ="),
        ("Parse failed: line 1 column 2", "Parse failed: line 1 column 2"),
        ("Parse failed", "Parse failed"),
        (
            "-----BEGIN EC PRIVATE KEY-----\nMHcC\nAQEE\n-----END EC PRIVATE KEY----- x",
            "-----BEGIN EC PRIVATE KEY-----***-----END EC PRIVATE KEY----- x",
        ),
        ("k -----BEGIN PRIVATE KEY-----\\nMHcCAQEE", "k -----BEGIN PRIVATE KEY-----***"),
        ("-----BEGIN PUBLIC KEY-----MHcC-----END", "-----BEGIN PUBLIC KEY-----MHcC-----END"),
        ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.c-_Ab by", "jwt *** by"),
        ("<eyJhbGciOiJub25lIn0.eyJzdWIiOiIxMjM0In0.>", "<***>"),
        ("heyJude eyJ.a eyJabc", "heyJude eyJ.a eyJabc"),
    ],
)
def test_secrets_in_text(text: str, expected: str) -> None:
    redactor = Redactor()
    assert redactor.redact_text(text) == expected
    assert redactor.redact_text(expected) == expected
    assert redactor.redact({"message": text})["message"] == expected
    assert redactor.redact({"message": text})["message"] == expected, "the name is known now"
    assert redactor.redact({"message": text.encode()})["message"] == expected.encode()


def test_long_text_takes_time_in_proportion() -> None:
    redactor = Redactor()
    for text in (
        "a" * 300_000 + "=",
        "a.b-" * 75_000,
        ":" * 100_000,
        "secret='" * 20_000,
        "://a:" * 50_000 + "@",
        "key:" * 50_000,
        "eyJ" * 100_000,
        "eyJaaaaaaaa." * 25_000,
        "-----BEGIN " * 25_000,
        "-----BEGIN PRIVATE KEY-----" * 10_000,
    ):
        started = time.monotonic()
        redactor.redact_text(text)
        assert time.monotonic() - started < 5


SECRETS = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=12, max_size=40).map(
    lambda text: f"Zq{text}"
)
NAMES = st.sampled_from([name for name in SECRET_NAMES if name.isidentifier()])
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=8)


@given(
    secret=SECRETS,
    name=NAMES,
    data=st.recursive(
        LEAVES,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    ),
    route=st.lists(st.sampled_from(["list", "tuple", "dict", "dataclass"]), max_size=18),
)
def test_no_secret_survives_anywhere(secret: str, name: str, data: Any, route: list[str]) -> None:
    holder: Any = {name: secret, "data": data}
    for step in route:
        wrapped = {"list": [data, holder], "tuple": (holder, data), "dict": {"x": holder, "y": data}}
        holder = wrapped[step] if step in wrapped else Account(holder, secret)
    assert secret not in repr(Redactor().redact({"context": holder, "z": data}))


@given(
    secret=SECRETS,
    name=NAMES,
    template=st.sampled_from(
        [
            "{}={}",
            "{}: {}",
            '"{}": "{}"',
            "'{}': '{}'",
            "?a=1&{}={}&b=2",
            "('{}', '{}')",
            '{{\\"{}\\": \\"{}\\"}}',
            "{} = {}",
        ]
    ),
    before=st.text(alphabet=" abcxyz.,;=:?&(){}\n", max_size=30).map(lambda text: f"{text} "),
    after=st.text(alphabet=" abcxyz.,;=:?&(){}\n", max_size=30).map(lambda text: f" {text}"),
)
def test_no_named_secret_survives_in_text(
    secret: str, name: str, template: str, before: str, after: str
) -> None:
    assert secret not in Redactor().redact_text(before + template.format(name, secret) + after)


@given(st.text())
def test_text_never_raises_and_is_stable(text: str) -> None:
    redactor = Redactor()
    once = redactor.redact_text(text)
    assert redactor.redact_text(once) == once


def test_a_long_name_takes_no_long_time() -> None:
    redactor = Redactor()
    started = time.process_time()
    assert redactor.is_secret("a_" * 1_000_000 + "api_key_mexc")
    assert not redactor.is_secret("token-A" * 300_000 + "_price")
    assert time.process_time() - started < 1


def test_the_quick_look_at_a_text_misses_no_word_that_names_a_secret() -> None:
    heads = (
        secret_names._ALWAYS
        | secret_names._UNLESS.keys()
        | secret_names.ONLY_AFTER.keys()
        | secret_names._SURE
        | secret_names._SURE_AFTER.keys()
    )
    for word in heads:
        assert secret_names.may_name_a_secret(f"the {word.upper()}=x")
