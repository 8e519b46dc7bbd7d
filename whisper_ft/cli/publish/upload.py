"""Upload of a folder to the Hub, to a private repository by default. Failures of Hub and network are retried."""

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

from whisper_ft.runtime.errors import RunError, UsageError, one_line
from whisper_ft.runtime.exit_codes import PREEMPTED

T = TypeVar("T")
ATTEMPTS = 5
FIRST_WAIT_SECONDS = 1.0  # wait after the first failure; doubled after each further one
TOKEN = "HF_TOKEN"


class HubError(RunError):
    """The Hub or the network failed in every attempt; a later one may succeed."""

    exit_code = PREEMPTED  # EX_TEMPFAIL: run the same command again


def token_of_environment() -> str:
    """Return the token in HF_TOKEN. A token stored by `hf auth login` is not used.

    Raises UsageError if HF_TOKEN is not set or holds characters that no token has.
    """
    token = os.environ.get(TOKEN, "").strip()
    if not token.isascii() or not token.isprintable() or " " in token:
        raise UsageError(f"{TOKEN} is no token, because it contains spaces or characters that no token has")
    if not token:
        raise UsageError(
            f"{TOKEN} is not set; make a token with write access at https://huggingface.co/settings/tokens and put it "
            "into the environment"
        )
    return token


def upload(folder: Path, repo: str, public: bool, message: str, token: str, report: Callable[[str], None]) -> str:
    """Upload the files of a folder to a model repository, and return the address of the commit.

    A missing repository is created. Other files in an existing one are kept. `report` is called with a line for the
    user at each retry, and if the repository stays private although `public` is True.

    Raises UsageError if the Hub refuses, or if the repository is public and `public` is False. Raises HubError if the
    Hub or the network fails in every attempt.
    """
    api = HfApi(token=token)

    def attempt() -> str:
        name = api.create_repo(repo, private=not public, exist_ok=True).repo_id
        is_private = bool(api.model_info(name).private)
        if not is_private and not public:
            raise UsageError(f"--repo {name}: is public on the Hub already; confirm with --public, or use another name")
        if is_private and public:
            report(f"{name} was private before and stays private; make it public in its settings on the Hub")
        return str(api.upload_folder(repo_id=name, folder_path=folder, commit_message=message).commit_url)

    if not sys.stderr.isatty():
        disable_progress_bars()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Warnings while validating metadata")  # the card is generated
        return _with_retries(attempt, repo, report)


def _with_retries(attempt: Callable[[], T], repo: str, report: Callable[[str], None]) -> T:
    """Call `attempt` up to ATTEMPTS times, and return the result of the first call that succeeds.

    If only the answer to a commit was lost, the next attempt makes no second commit, because the Hub has the files
    already. huggingface_hub itself retries only two requests: how to upload a file, and the upload of a file.
    """
    wait = FIRST_WAIT_SECONDS
    for number in range(1, ATTEMPTS + 1):
        try:
            return attempt()
        except Exception as error:  # sorted below into failures that may pass and refusals
            if not _may_pass(error):
                raise _explained(error, repo) from error
            reason = one_line(error)[:200]
            if isinstance(error, HfHubHTTPError):
                reason = f"status {error.response.status_code}"
            if number == ATTEMPTS:
                raise HubError(
                    f"--repo {repo}: the Hub failed {ATTEMPTS} times ({reason}); run the same command again later"
                ) from error
            report(f"the Hub failed ({reason}); again in {wait:g} s")
            time.sleep(wait)
            wait *= 2
    raise AssertionError("there is a last attempt")


def _may_pass(error: Exception) -> bool:
    """Return True for a failure of the network or the Hub, which may pass; False for a refusal or a bug."""
    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500 or error.response.status_code in (408, 429)
    # The Hub's check of a card answers in JSON; a failing proxy in front of it does not.
    is_network = isinstance(error, (httpx2.TransportError, json.JSONDecodeError, TimeoutError, ConnectionError))
    return is_network and not isinstance(error, OfflineModeIsEnabled)


def _explained(error: Exception, repo: str) -> Exception:
    """Return a refusal as a UsageError, and any other exception unchanged, because it is a bug."""
    if isinstance(error, OfflineModeIsEnabled):
        return UsageError(f"--repo {repo}: cannot be reached, because HF_HUB_OFFLINE is set; unset it")
    if isinstance(error, HFValidationError):
        return UsageError(f"--repo {repo}: is no name of a repository, such as owner/name")
    if isinstance(error, HfHubHTTPError):
        status, answer = error.response.status_code, one_line(error.server_message or error)[:300]
        if status == 401:
            return UsageError(f"--repo {repo}: the Hub does not accept {TOKEN} ({answer})")
        if status == 403:
            return UsageError(f"--repo {repo}: {TOKEN} has no write access there ({answer})")
        return UsageError(f"--repo {repo}: the Hub refused ({status}: {answer})")
    if isinstance(error, ValueError) and "metadata" in str(error):
        return UsageError(f"--repo {repo}: the Hub refused the card: {one_line(error)[:300]}")
    return error
