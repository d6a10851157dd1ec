"""A backup comes as a stream of bytes, and goes back as a body of any size."""

from __future__ import annotations

import http.client
import sys

import pytest
from server_kit import Platform

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
