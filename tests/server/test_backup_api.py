"""A backup comes as a stream of bytes, and goes back as a body of any size."""

from __future__ import annotations

import http.client
import sys

import pytest
from server_kit import Answer, Platform

from mini_core.types import replace

TAR = "application/x-tar"


def test_a_backup_is_a_tar_for_keys_of_the_whole_platform(platform: Platform) -> None:
    answer = platform.key.get("/v1/backup?images=1")
    assert (answer.status, answer.headers["Content-Type"], answer.body) == (200, TAR, b"images and more")
    assert platform.key.get("/v1/backup").body == b"no images and more"
    assert platform.blog.get("/v1/backup").status == 403
    assert platform.blog.request("POST", "/v1/restore", b"small", Content_Type=TAR).status == 403


def test_one_that_fails_in_the_middle_is_seen_to_be_cut_off(platform: Platform) -> None:
    platform.controller.broken = True
    connection = platform.key.open("GET", "/v1/backup")
    with connection.getresponse() as response, pytest.raises(http.client.HTTPException):
        response.read()
    connection.close()


@pytest.mark.skipif(sys.platform != "linux", reason="looks at open files in /proc")
@pytest.mark.parametrize("size", [100, 3_000_000])
def test_a_backup_may_be_larger_than_a_source_and_is_kept_in_the_platform_s_folder(
    platform: Platform, size: int
) -> None:
    """The limit of sources is 2 MB here."""
    body = b"first" + bytes(size)
    for client in (platform.key, platform.admin):
        answer = client.request("POST", "/v1/restore?replace=1", body, Content_Type=TAR)
        assert answer.status == 200
        assert answer.lines() == [
            {"kind": "done", "text": f"first {size} True {size > 100_000}", "code": "", "hint": ""}
        ]
    assert list(platform.controller.uploads.glob("*")) == []


def test_a_large_body_is_not_read_from_a_key_of_one_app(platform: Platform) -> None:
    answer = platform.blog.request("POST", "/v1/restore", bytes(100_000), Content_Type=TAR)
    assert (answer.status, answer.json()["code"]) == (401, "denied")


def test_what_is_no_tar_is_refused(platform: Platform) -> None:
    assert platform.key.request("POST", "/v1/restore", b"{}", Content_Type="application/json").status == 415


def test_while_the_platform_is_restored_other_calls_wait_for_their_turn(platform: Platform) -> None:
    platform.controller.restoring = True
    for url in ("/v1/status", "/v1/apps", "/v1/backup"):
        answer = platform.key.get(url)
        assert (answer.status, answer.json()["code"]) == (503, "restoring")
        assert answer.headers["Retry-After"]
    assert platform.client().get("/healthz").status == 200


def test_a_backup_may_come_in_pieces_each_of_which_may_come_again(platform: Platform) -> None:
    name = "0123456789abcdef"

    def put(offset: int, piece: bytes) -> Answer:
        return platform.key.request("PUT", f"/v1/restore/{name}?offset={offset}", piece, Content_Type=TAR)

    assert put(0, b"mini " + bytes(100_000)).json() == {"size": 100_005}
    assert put(50_005, bytes(60_000)).json() == {"size": 110_005}
    missing = put(200_000, b"x")
    assert (missing.status, missing.json()["title"]) == (409, "89995 bytes are missing before this piece.")
    answer = platform.key.request("POST", f"/v1/restore?upload={name}")
    assert answer.lines()[0]["text"] == "mini  110000 False True"
    assert list(platform.controller.uploads.iterdir()) == [], "it is gone with the last descriptor"
    assert platform.key.request("POST", f"/v1/restore?upload={name}").status == 404
    assert platform.key.request("PUT", "/v1/restore/..%2Fmini.db", b"x", Content_Type=TAR).status in (400, 404)
    assert platform.key.request("PUT", "/v1/restore/mini", b"x", Content_Type=TAR).status == 400
    assert platform.blog.request("PUT", f"/v1/restore/{name}", b"x", Content_Type=TAR).status == 403


def test_pieces_that_would_fill_the_disk_are_refused(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform.controller, "settings", replace(platform.controller.settings, disk_reserve=1 << 60))
    refused = platform.key.request("PUT", "/v1/restore/0123456789abcdef", b"x", Content_Type=TAR)
    assert (refused.status, refused.json()["code"]) == (503, "disk-full")
