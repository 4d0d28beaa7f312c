"""A request -> an open answer; repeated after what may pass: a cut line, a timeout, a server that is busy.

urllib of the standard library: it follows redirects, takes proxies and their exceptions from the environment
(https_proxy, no_proxy), checks certificates against the system's (SSL_CERT_FILE names others), and leaves Range,
If-Range and ETag to the caller, as a store's client (obstore) does not.
"""

import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from email.utils import parsedate_to_datetime
from typing import Any

TIMEOUT = 60.0  # seconds without a byte
DELAYS = (1.0, 2.0, 4.0, 8.0, 16.0)  # seconds before each repetition
LONGEST = 120.0  # seconds that a server may ask us to wait
PASSING = frozenset((408, 425, 429, 500, 502, 503, 504))
LARGEST = 1 << 26  # bytes of a JSON answer
AGENT = "dist_train (https, urllib)"


class Passing(Exception):
    """What may be gone next time; wait: seconds that the server asks for, if it does."""

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


class Refused(ValueError):
    """The server's no; code: its HTTP status."""

    def __init__(self, address: str, code: int, reason: str) -> None:
        super().__init__(f"{address}: {code} {reason}")
        self.code = code


class _Redirect(urllib.request.HTTPRedirectHandler):
    """Never from https to plain http."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise ValueError(f"{req.full_url}: leads to {newurl}, which is not encrypted; it is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextmanager
def ask(address: str, headers: Mapping[str, str] | None = None) -> Iterator[http.client.HTTPResponse]:
    """The answer, open. Passing: try again; Refused: the server says no; ValueError: no such way."""
    given = {"User-Agent": AGENT, "Accept-Encoding": "identity", **(headers or {})}
    opener = urllib.request.build_opener(_Redirect)
    try:
        response = opener.open(urllib.request.Request(address, headers=given), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code in PASSING:
                raise Passing(f"{error.code} {error.reason}", _wait(error.headers.get("Retry-After"))) from None
            raise Refused(address, error.code, str(error.reason)) from None
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise ValueError(
                f"{address}: its certificate cannot be checked ({error.reason.verify_message}); behind a proxy that "
                "opens TLS name its authority in SSL_CERT_FILE"
            ) from None
        raise Passing(str(error.reason)) from None
    except (OSError, http.client.HTTPException) as error:
        raise Passing(str(error) or type(error).__name__) from None
    with response:
        yield response


def read(response: http.client.HTTPResponse, size: int) -> bytes:
    """What has come of an answer, at most so many bytes; b"" at its end. Passing where the line is cut."""
    try:
        return response.read1(size)  # read would wait until so many are there
    except (OSError, http.client.HTTPException) as error:
        raise Passing(str(error) or type(error).__name__) from None


def pause(passing: Passing, failed: int) -> bool:
    """Wait before the next try, after `failed` ones; False: there were enough."""
    if failed > len(DELAYS):
        return False
    time.sleep(min(passing.wait, LONGEST) if passing.wait is not None else DELAYS[failed - 1])
    return True


def value(address: str) -> Any:
    """The value of a JSON answer. ConnectionError after all tries; ValueError: refused, or no JSON."""
    failed = 0
    while True:
        try:
            with ask(address, {"Accept": "application/json"}) as response:
                text = bytearray()
                while chunk := read(response, 1 << 20):
                    text += chunk
                    if len(text) > LARGEST:
                        raise ValueError(f"{address}: answers with more than {LARGEST >> 20} MB")
            return json.loads(text)
        except Passing as passing:
            failed += 1
            if not pause(passing, failed):
                raise ConnectionError(f"{address}: cannot be reached ({passing}); try again later") from None


def _wait(text: str | None) -> float | None:
    """Seconds of a Retry-After: a number, or a date."""
    if not text:
        return None
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None
