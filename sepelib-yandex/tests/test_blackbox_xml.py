"""XML from Blackbox, and from whoever stands in its place."""

import traceback

import pytest

from sepelib.yandex._blackbox_xml import MAX_DEPTH, Unparsable, parse


def test_elements_become_what_the_json_has() -> None:
    answer = parse(
        b'<?xml version="1.0" encoding="UTF-8"?>\n<doc>'
        b'<uid hosted="0">11</uid><status id="0">VALID</status><login>ann</login>'
        b'<karma confirmed="0" allow-until="5">85</karma>'
        b'<dbfield id="a.b.c">x &amp; y</dbfield><dbfield id="d"></dbfield>'
        b'<attributes><attribute type="1008">ann</attribute></attributes>'
        b"<oauth><client_id>c</client_id><scope>a b</scope></oauth></doc>"
    )
    assert answer == {
        "uid": {"hosted": "0", "value": "11"},
        "status": {"id": "0", "value": "VALID"},
        "login": "ann",
        "karma": {"confirmed": "0", "allow-until": "5", "value": "85"},
        "dbfields": {"a.b.c": "x & y", "d": ""},
        "attributes": {"1008": "ann"},
        "oauth": {"client_id": "c", "scope": "a b"},
    }


def test_several_users_become_a_list_and_so_does_one() -> None:
    one = b"<user><uid>1</uid><dbfield id='a'>b</dbfield></user>"
    assert parse(b"<doc>" + one + b"</doc>") == {"users": [{"uid": "1", "dbfields": {"a": "b"}}]}
    assert len(parse(b"<doc>" + one + one + b"</doc>")["users"]) == 2


def test_the_name_of_the_root_does_not_matter() -> None:
    assert parse(b"<anything><uid>1</uid></anything>") == {"uid": "1"}


def test_the_encoding_is_the_one_that_it_says() -> None:
    text = "<?xml version='1.0' encoding='windows-1251'?><doc><login>Аня</login></doc>"
    assert parse(text.encode("cp1251")) == {"login": "Аня"}


LAUGHS = (
    b"<!DOCTYPE d [<!ENTITY a 'ha'><!ENTITY b '" + b"&a;" * 50 + b"'>]><doc><uid>&b;</uid></doc>"
)
OUTSIDE = b"<!DOCTYPE d [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><doc><uid>&a;</uid></doc>"


@pytest.mark.parametrize(
    "data",
    [LAUGHS, OUTSIDE, b"<!DOCTYPE html><html><body>Hi</body></html>"],
    ids=["billion laughs", "external entity", "a page"],
)
def test_a_dtd_is_refused_before_anything_of_it_is_used(data: bytes) -> None:
    with pytest.raises(Unparsable, match="DTD"):
        parse(data)


@pytest.mark.parametrize(
    "data",
    [
        b"<doc><uid>1</uid>",
        b"<doc>",
        b"<doc/>",
        b"<doc>text</doc>",
        b"<doc><uid>&nbsp;</uid></doc>",
        b"<?xml version='1.0' encoding='nonsense'?><doc><uid>1</uid></doc>",
        b"<doc><uid>\xff</uid></doc>",
        b"<a><b></a></b>",
        b"",
    ],
)
def test_what_is_no_answer_is_unparsable(data: bytes) -> None:
    with pytest.raises(Unparsable):
        parse(data)


def test_nesting_has_an_end() -> None:
    def nested(depth: int) -> bytes:
        return b"<a>" * depth + b"x" + b"</a>" * depth

    parse(nested(MAX_DEPTH))
    with pytest.raises(Unparsable, match="nested deeper"):
        parse(nested(MAX_DEPTH + 1))
    with pytest.raises(Unparsable, match="nested deeper"):
        parse(b"<a>" * 1_000_000)


def test_an_error_has_no_word_of_the_answer() -> None:
    answer = b"<doc><user_ticket>3:user:secret:x</user_ticket>"
    with pytest.raises(Unparsable) as raised:
        parse(answer)
    shown = "".join(traceback.format_exception(raised.value))
    assert "secret" not in shown
