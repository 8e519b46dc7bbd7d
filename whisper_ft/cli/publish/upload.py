"""A folder to the Hub: into a private repository unless told otherwise, again where the Hub or the network fails."""

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import httpx2
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils.tqdm import disable_progress_bars

from whisper_ft.runtime.errors import PREEMPTED, RunError, UsageError, one_line

T = TypeVar("T")
ATTEMPTS = 5
FIRST_WAIT_SECONDS = 1.0  # doubled each time
TOKEN = "HF_TOKEN"


class HubError(RunError):
    """The Hub or the way to it failed, several times; later it may work."""

    exit_code = PREEMPTED  # EX_TEMPFAIL: run the same command again


def token_of_environment() -> str:
    """The token; UsageError without one. A token that `hf auth login` stored is not looked for."""
    token = os.environ.get(TOKEN, "").strip()
    if not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(f"{TOKEN} is no token: it holds spaces or letters that no token has")
    if not token:
        raise UsageError(
            f"{TOKEN} is not set: make a token that may write at https://huggingface.co/settings/tokens and put it "
            "into the environment"
        )
    return token


def upload(folder: Path, repo: str, public: bool, message: str, token: str, say: Callable[[str], None]) -> str:
    """Put the files of a folder into a repository of models; gives the address of the commit.

    The repository is made if it is not there. Files of other names that it holds stay. UsageError where the Hub
    refuses, or where the repository is public and `public` is not asked for; HubError where it cannot be reached.
    """
    api = HfApi(token=token)

    def attempt() -> str:
        name = api.create_repo(repo, private=not public, exist_ok=True).repo_id
        is_private = bool(api.model_info(name).private)
        if not is_private and not public:
            raise UsageError(f"--repo {name}: is public on the Hub already; say --public, or choose another name")
        if is_private and public:
            say(f"{name} was private before, and stays so: its settings on the Hub make it public")
        return str(api.upload_folder(repo_id=name, folder_path=folder, commit_message=message).commit_url)

    if not sys.stderr.isatty():
        disable_progress_bars()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Warnings while validating metadata")  # the card is ours
        return _again(attempt, repo, say)


def _again(attempt: Callable[[], T], repo: str, say: Callable[[str], None]) -> T:
    """Try several times. A commit whose answer got lost is not made twice: the Hub knows the files by then.

    huggingface_hub itself tries again only when it asks how to upload a file and when it uploads one.
    """
    wait = FIRST_WAIT_SECONDS
    for number in range(1, ATTEMPTS + 1):
        try:
            return attempt()
        except Exception as error:  # sorted below into what may pass and what is the user's
            if not _may_pass(error):
                raise _explained(error, repo) from error
            said = (
                f"status {error.response.status_code}" if isinstance(error, HfHubHTTPError) else one_line(error)[:200]
            )
            if number == ATTEMPTS:
                raise HubError(
                    f"--repo {repo}: the Hub failed {ATTEMPTS} times ({said}); run the same command again later"
                ) from error
            say(f"the Hub failed ({said}); again in {wait:g} s")
            time.sleep(wait)
            wait *= 2
    raise AssertionError("there is a last attempt")


def _may_pass(error: Exception) -> bool:
    """Whether it is the network or the Hub that failed."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500 or error.response.status_code in (408, 429)
    # The Hub's check of a card answers in JSON, the proxy in front of it that fails does not.
    is_network = isinstance(error, (httpx2.TransportError, json.JSONDecodeError, TimeoutError, ConnectionError))
    return is_network and not isinstance(error, OfflineModeIsEnabled)


def _explained(error: Exception, repo: str) -> Exception:
    """What the refusal means for the user; a bug of ours stays what it is."""
    if isinstance(error, OfflineModeIsEnabled):
        return UsageError(f"--repo {repo}: is on the Hub, and HF_HUB_OFFLINE is set; unset it")
    if isinstance(error, HFValidationError):
        return UsageError(f"--repo {repo}: is no name of a repository, such as owner/name")
    if isinstance(error, HfHubHTTPError):
        status, said = error.response.status_code, one_line(error.server_message or error)[:300]
        if status == 401:
            return UsageError(f"--repo {repo}: the Hub does not accept {TOKEN} ({said})")
        if status == 403:
            return UsageError(f"--repo {repo}: {TOKEN} may not write there ({said})")
        return UsageError(f"--repo {repo}: the Hub refused ({status}: {said})")
    if isinstance(error, ValueError) and "metadata" in str(error):
        return UsageError(f"--repo {repo}: the Hub refused the card: {one_line(error)[:300]}")
    return error
