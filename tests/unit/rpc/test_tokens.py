from __future__ import annotations

from pathlib import Path

import pytest

from shared.rpc.errors import CredentialsError
from shared.rpc.tokens import MIN_LENGTH, Scope, Tokens, read_token, read_tokens

SECRET = "s3cret-s3cret-s3cret"  # noqa: S105  # nobody lets it in


def tokens(folder: Path, text: str) -> Tokens:
    path = folder / SECRET  # a name that is as secret as what is in it
    path.write_text(text, "utf-8")
    return read_tokens(path)


def complaint(folder: Path, text: str) -> str:
    with pytest.raises(CredentialsError) as caught:
        tokens(folder, text)
    return caught.value.message


def test_each_line_names_who_may_call_and_what_for(tmp_path: Path) -> None:
    known = tokens(
        tmp_path,
        "\ufeff# people\n\nanna read abcdefghijklmnop\n"
        "  ci.bot-1\twrite  ABCDEFGHIJKLMNOP+/==\r\n#ed read x",
    )
    found = {token: known.entry_of(token) for token in ("abcdefghijklmnop", "ABCDEFGHIJKLMNOP+/==")}
    assert [("anna", Scope.READ), ("ci.bot-1", Scope.WRITE)] == [
        (entry.name, entry.scope) for entry in found.values() if entry
    ]


def test_what_is_not_a_token_is_nobodys(tmp_path: Path) -> None:
    known = tokens(tmp_path, "anna read abcdefghijklmnop\n")
    for other in (
        "",
        "abcdefghijklmno",
        "abcdefghijklmnopq",
        "ABCDEFGHIJKLMNOP",
        "anna",
        "é\udcff",
    ):
        assert known.entry_of(other) is None


def test_what_is_kept_does_not_hold_the_tokens(tmp_path: Path) -> None:
    known = tokens(tmp_path, f"anna read {SECRET}\n")
    entry = known.entry_of(SECRET)
    assert entry is not None
    assert SECRET.encode() not in entry.digest
    assert SECRET not in repr(entry)
    assert repr(entry.digest) not in repr(entry)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (SECRET, "three words"),
        (f"anna {SECRET}", "three words"),
        (f"anna read {SECRET} {SECRET}", "three words"),
        (f"{SECRET}! read {SECRET}", "the name must be"),
        (f"anna {SECRET} read", "the scope must be read or write"),
        (f"anna admin {SECRET}", "the scope must be read or write"),
        (f"anna READ {SECRET}", "the scope must be read or write"),
        (f"anna read {SECRET[: MIN_LENGTH - 1]}", "the token must be 16 to 512"),
        (f"anna read {SECRET}é", "the token must be 16 to 512"),
        (f"anna read {'x' * 600}", "the token must be 16 to 512"),
        (f"first read {SECRET}2", "the name first is there already"),
        ("anna read abcdefghijklmnop", "the token is another's already"),
    ],
)
def test_a_bad_line_is_named_by_its_number_and_not_repeated(
    tmp_path: Path, line: str, problem: str
) -> None:
    text = complaint(tmp_path, f"first read abcdefghijklmnop\n\n{line}\n")
    assert text.startswith("KTRDR_TOKENS_FILE: line 3: ")
    assert problem in text
    assert SECRET[: MIN_LENGTH - 1] not in text


@pytest.mark.parametrize("text", ["", "\n\n", "# anna read abcdefghijklmnop\n"])
def test_a_file_without_tokens_is_refused_with_how_to_make_one(tmp_path: Path, text: str) -> None:
    assert "openssl rand -hex 32" in complaint(tmp_path, text)


def test_a_clients_file_holds_one_token(tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text("  abcdefghijklmnop\r\n")
    assert "abcdefghijklmnop" == read_token(path)


@pytest.mark.parametrize(
    "text", ["", "\n", f"anna read {SECRET}", f"{SECRET}\n{SECRET}", f"Bearer {SECRET}", "é" * 20]
)
def test_a_clients_file_with_anything_else_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "token"
    path.write_text(text, "utf-8")
    with pytest.raises(CredentialsError, match=r"KTRDR_TOKEN_FILE: .*one token") as caught:
        read_token(path)
    assert SECRET not in caught.value.message


@pytest.mark.parametrize("read", [read_token, read_tokens])
def test_a_token_in_place_of_its_files_name_is_not_repeated(read: object) -> None:
    assert callable(read)
    with pytest.raises(CredentialsError) as caught:
        read(Path(SECRET))
    assert "takes the path of a file, not a token" in caught.value.message
    assert SECRET not in caught.value.message
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"x" * (1024 * 1024 + 1)])
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)
    for read in (read_token, read_tokens):
        with pytest.raises(CredentialsError, match="name another"):
            read(path)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(CredentialsError, match="cannot be read"):
        read_tokens(tmp_path)
