"""What build_message() makes, read back by parsers that do not know how it was made."""

from __future__ import annotations

import email
import email.policy
import os
import re
import socket
from datetime import UTC, datetime, timedelta
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.utils import getaddresses
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sepelib.util.smtp import build_message

SENDER, TO = "lookout@example.org", "ann@example.org"

# What may stand in a header: no controls, no halves of characters.
TEXT = st.text(
    st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp"]) | st.sampled_from(' "\\,;=?<>ёЖ'),
    max_size=150,
)
quick = settings(derandomize=True, max_examples=150, deadline=None)


def built(**given: Any) -> EmailMessage:
    return build_message(
        given.pop("sender", SENDER),
        given.pop("to", TO),
        given.pop("subject", "subject"),
        given.pop("text", "text"),
        **given,
    )


def parsed(message: EmailMessage) -> EmailMessage:
    return email.message_from_bytes(message.as_bytes(), policy=email.policy.default)


def raw_headers(message: EmailMessage) -> str:
    return message.as_bytes().split(b"\r\n\r\n", 1)[0].decode()


def test_a_message_has_a_date_and_an_id_of_its_own() -> None:
    one, other = built(), built()
    date = parsed(one)["Date"].datetime
    assert abs(datetime.now(UTC) - date) < timedelta(minutes=5)
    assert re.fullmatch(r"<[^<>@ ]+@example\.org>", one["Message-ID"])
    assert one["Message-ID"] != other["Message-ID"]


def test_nobody_asks_the_dns_for_our_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "getfqdn")
    assert built()["Message-ID"]


@pytest.mark.parametrize("length", [10, 70, 200, 850])
def test_a_given_message_id_is_written_as_it_is(length: int) -> None:
    given = f"<{'x' * length}@example.org>"
    message = built(message_id=given, headers={"References": f"{given} {given}"})
    assert parsed(message)["Message-ID"] == given
    unfolded = raw_headers(message).replace("\r\n ", " ")
    assert f"References: {given} {given}" in unfolded  # nothing encoded: clients compare bytes


@pytest.mark.parametrize("given", ["x@y", "<x>", "<x y@z>", "<é@z>", "<x@y><x@y>", "<a@b>\n"])
def test_what_is_no_message_id_is_refused(given: str) -> None:
    with pytest.raises(ValueError, match=r"message id|control"):
        built(message_id=given)


def test_bcc_is_not_in_the_message() -> None:
    message = built(cc="bob@example.org", bcc=["eve@example.org"])
    assert b"eve" not in message.as_bytes()
    assert message["Cc"] == "bob@example.org"


def test_domains_are_written_in_idna() -> None:
    message = built(sender="Ёж <ivan@пример.рф>", to="anna@Bücher.example", reply_to="x@пример.рф")
    text = message.as_bytes()
    assert text.isascii()
    assert b"<ivan@xn--e1afmkfd.xn--p1ai>" in text
    assert b"To: anna@xn--bcher-kva.example\r\n" in text
    assert b"Reply-To: x@xn--e1afmkfd.xn--p1ai\r\n" in text


@pytest.mark.parametrize("domain", ["faß.de", "βόλος.com", "a\u200db.example"])
def test_a_domain_that_idna_2003_would_send_to_somebody_else_is_refused(domain: str) -> None:
    with pytest.raises(ValueError, match="xn-- form"):
        built(to=f"ann@{domain}")


def test_a_local_part_beyond_ascii_makes_it_a_utf8_message() -> None:
    text = built(to="Ёж <иван@пример.рф>").as_bytes().decode()
    assert "<иван@xn--e1afmkfd.xn--p1ai>" in text
    assert "To: иван@xn--e1afmkfd.xn--p1ai\r\n" in built(to="иван@пример.рф").as_bytes().decode()
    assert built(bcc="иван@пример.рф").as_bytes().isascii()


@pytest.mark.parametrize("control", ["\n", "\r", "\r\nBcc: eve@x", "\0", "\x85", "\u2028", "\x7f"])
@pytest.mark.parametrize(
    "place",
    ["sender", "to", "subject", "cc", "bcc", "reply_to", "headers", "name", "message_id", "type"],
)
def test_a_line_end_or_control_character_in_a_header_is_refused(place: str, control: str) -> None:
    given: dict[str, Any] = {
        "sender": {"sender": f"Ann{control} <ann@example.org>"},
        "to": {"to": [TO, f"bob@example.org{control}"]},
        "subject": {"subject": f"down{control}"},
        "cc": {"cc": [f"bob{control}@example.org"]},
        "bcc": {"bcc": [f"bob@exa{control}mple.org"]},
        "reply_to": {"reply_to": f'"Bob{control}" <bob@example.org>'},
        "headers": {"headers": {"X-Reason": f"because{control}"}},
        "name": {"attachments": [(f"a{control}.txt", b"")]},
        "message_id": {"message_id": f"<a{control}@b>"},
        "type": {"attachments": [("a", b"", f"text/csv{control}")]},
    }[place]
    with pytest.raises(ValueError, match=r"control character|message id"):
        built(**given)


@pytest.mark.parametrize("place", ["subject", "text", "html"])
def test_half_a_character_is_refused(place: str) -> None:
    with pytest.raises(ValueError, match=r"control character|surrogate"):
        built(**{place: "a\udce9"})


@pytest.mark.parametrize(
    "address",
    [
        "",
        "ann",
        "@example.org",
        "ann@",
        "a@x, b@y",
        "a@x; b@y",
        "a@x b@y",
        "a@x, Bob <b@y>",
        "<a@x> b",
        "Ann <a@x> <b@y>",
        "a..b@x",
        ".a@x",
        "a@x..y",
        "a@-x",
        "a b@x",
        "a\u2003b@x",
        "a@x>",
        'Ann "B <a@x>',
        '"Ann <a@x>',
        '"a"b@x',
        "a" * 65 + "@x",
        "a@" + "b" * 300,
        "a@" + "ё" * 64,
    ],
)
def test_what_is_not_one_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match=r"^to: .*(address|domain|IDNA)"):
        built(to=[address])


@pytest.mark.parametrize(
    ("written", "name", "address"),
    [
        ("ann@example.org", "", "ann@example.org"),
        ("<ann@example.org>", "", "ann@example.org"),
        (" Ann B. <ann+tag@example.org> ", "Ann B.", "ann+tag@example.org"),
        ('"Bee, Ann" <ann@[127.0.0.1]>', "Bee, Ann", "ann@[127.0.0.1]"),
        ("Bee, Ann <ann@host>", "Bee, Ann", "ann@host"),
        (r'"A \"B\" \\C" <ann@my_host>', r'A "B" \C', "ann@my_host"),
        ('Ann <"ann bee"@example.org>', "Ann", '"ann bee"@example.org'),
        ("=?utf-8?q?x?= <ann@example.org>", "=?utf-8?q?x?=", "ann@example.org"),
    ],
)
def test_an_address_is_read_as_written(written: str, name: str, address: str) -> None:
    shown = parsed(built(to=written))["To"].addresses[0]
    assert shown.addr_spec == address
    assert shown.display_name == name


@quick
@given(TEXT)
def test_any_display_name_comes_out_as_it_went_in(name: str) -> None:
    quoted = name.replace("\\", "\\\\").replace('"', '\\"')
    message = built(to=[f'"{quoted}" <ann@example.org>', f'"{quoted}" <bob@example.org>'])
    head = raw_headers(message)
    assert all(len(line) < 100 for line in head.split("\r\n"))
    assert head.isascii()
    # The old parser: the new one puts a space between the encoded words of a name.
    to = email.message_from_bytes(message.as_bytes())["To"].replace("\r\n", "")
    shown = [(decoded(name), address) for name, address in getaddresses([to])]
    assert [address for _, address in shown] == ["ann@example.org", "bob@example.org"]
    # It is free with blanks at the ends, and in names without any character beyond ASCII.
    assert ["".join(name.split()) for name, _ in shown] == ["".join(name.split())] * 2
    if not name.isascii():
        assert [name.strip() for name, _ in shown] == [name.strip()] * 2


def decoded(text: str) -> str:
    return str(make_header(decode_header(text)))


@quick
@given(TEXT)
def test_any_subject_comes_out_as_it_went_in(subject: str) -> None:
    message = built(subject=subject)
    head = raw_headers(message)
    assert head.isascii()
    assert all(len(line) <= 78 for line in head.split("\r\n") if "Message-ID" not in line)
    old = email.message_from_bytes(message.as_bytes())["Subject"].replace("\r\n", "")
    assert decoded(old).strip() == subject.strip()
    assert parsed(message)["Subject"].strip() == subject.strip()


@pytest.mark.parametrize("word", ["x" * 300, "x" * 5000, "ж" * 5000])
def test_a_word_of_any_length_fits_into_header_lines(word: str) -> None:
    message = built(subject=word, headers={"X-Word": f"a {word} b"})
    assert max(len(line) for line in message.as_bytes().split(b"\r\n")) <= 998
    assert parsed(message)["Subject"] == word
    assert parsed(message)["X-Word"] == f"a {word} b"


@pytest.mark.parametrize(
    "name", ["From", "bcc", "Content-Type", "Message-ID", "Resent-To", "X Y", "X:", "", "Ж"]
)
def test_headers_that_are_ours_or_none_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot have"):
        built(headers={name: "x"})


def test_other_headers_are_taken() -> None:
    message = built(headers={"Auto-Submitted": "auto-generated", "X-Why": "пожар"})
    assert parsed(message)["Auto-Submitted"] == "auto-generated"
    assert parsed(message)["X-Why"] == "пожар"


def test_text_and_html_are_alternatives() -> None:
    message = parsed(built(text="привет", html="<b>привет</b>"))
    body, html = message.get_body(("plain",)), message.get_body(("html",))
    assert body is not None and html is not None
    assert message.get_content_type() == "multipart/alternative"
    assert body.get_content() == "привет\r\n"
    assert html.get_content() == "<b>привет</b>\r\n"


@quick
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.just("\n"), max_size=2000))
def test_any_text_arrives_through_a_server_of_seven_bits(text: str) -> None:
    message = built(text=text)
    raw = message.as_bytes()
    assert raw.isascii()
    assert max(len(line) for line in raw.split(b"\r\n")) <= 78
    body = parsed(message).get_body()
    assert body is not None
    assert body.get_content().replace("\r\n", "\n").rstrip("\n") == text.rstrip("\n")


@quick
@given(TEXT.filter(lambda name: name.strip() != "").map(lambda name: name.replace("/", "_")))
def test_any_file_name_is_read_back(name: str) -> None:
    message = built(attachments=[(name, b"\0data")])
    raw = message.as_bytes()
    assert raw.isascii()
    (attached,) = parsed(message).iter_attachments()
    assert str(attached.get_filename()).strip() == name.strip()
    assert attached.get_content() == b"\0data"


def test_a_file_name_beyond_ascii_is_written_by_rfc_2231() -> None:
    raw = built(attachments=[("отчёт.csv", b"1;2")]).as_bytes()
    assert b"filename*=utf-8''%D0%BE%D1%82%D1%87%D1%91%D1%82.csv" in raw
    for part in email.message_from_bytes(raw).walk():  # the old parser too, as a second opinion
        if part.get_content_disposition() == "attachment":
            assert part.get_filename() == "отчёт.csv"
            break
    else:
        pytest.fail("no attachment")


def test_attachments_are_paths_or_bytes_with_a_type_by_name_or_given(tmp_path: Path) -> None:
    path = tmp_path / "report.csv"
    path.write_bytes(b"a;b\n")
    message = built(
        attachments=[
            path,
            str(path),
            ("other.pdf", path),
            ("x.log.gz", b"1"),
            ("mail.eml", b"2"),
            ("data", b"3"),
            ("page", "жук".encode("cp1251"), "text/HTML; charset=windows-1251"),
        ]
    )
    found = [
        (part.get_filename(), part.get_content_type(), part.get_payload(decode=True))
        for part in parsed(message).iter_attachments()
    ]
    assert found == [
        ("report.csv", "text/csv", b"a;b\n"),
        ("report.csv", "text/csv", b"a;b\n"),
        ("other.pdf", "application/pdf", b"a;b\n"),
        ("x.log.gz", "application/octet-stream", b"1"),
        ("mail.eml", "application/octet-stream", b"2"),
        ("data", "application/octet-stream", b"3"),
        ("page", "text/html", "жук".encode("cp1251")),
    ]
    page = list(parsed(message).iter_attachments())[-1]
    assert page.get_content() == "жук"


@pytest.mark.parametrize("kind", ["text", "text/", "message/rfc822", "multipart/mixed", "a/b; c"])
def test_a_content_type_that_cannot_be_is_refused(kind: str) -> None:
    with pytest.raises(ValueError, match="content type"):
        built(attachments=[("a", b"", kind)])


@pytest.mark.parametrize("name", ["", "../../etc/passwd", "a/b"])
def test_an_attachment_named_like_a_path_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="file name"):
        built(attachments=[(name, b"")])


def test_an_attachment_that_cannot_be_read_is_told_and_a_fifo_is_not_waited_for(
    tmp_path: Path,
) -> None:
    with pytest.raises(FileNotFoundError, match="nowhere"):
        built(attachments=[tmp_path / "nowhere"])
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="not a regular file"):
        built(attachments=[tmp_path / "fifo"])
