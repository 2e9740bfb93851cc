"""Tokens for SASL/OAUTHBEARER (RFC 7628): from an identity provider's endpoint, or from a function of the user's.

An endpoint is asked with a client's id and secret (RFC 6749, section 4.4), once for all connections of a process and
again before the token expires. What signs tokens with the credentials of a cloud (AWS MSK IAM, Google, Azure) is
named as `module:function`, returns (token, seconds since the epoch at which it expires), and takes nothing.
"""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import Callable, Mapping
from http.client import HTTPException
from threading import Lock
from typing import Any, NamedTuple
from urllib.error import HTTPError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

import orjson

from streams.errors import InputError, ReptideError, SettingsError, Unavailable
from streams.logs.kafka.security import ENDPOINT, FUNCTION
from streams.system.named_function import NotAFunction, named_function

ANSWER_S = 5.0
LIFETIME_S = 300.0
"""Of a token whose endpoint does not say."""
RENEWED_AT = 0.75
"""Of its lifetime; librdkafka asks for another at 0.8."""
LONGEST_REPLY = 1 << 20
ERRORS = {"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type",
          "invalid_scope"}  # fmt: skip
"""What an endpoint may say of a refusal; anything else may quote what it was sent."""


class Token(NamedTuple):
    """One token."""

    text: str
    expires_s: float
    """Seconds since the epoch."""


class Tokens:
    """Where the connections of a process get their token; any thread may ask."""

    def __init__(
        self,
        fetch: Callable[[], Token],
        extensions: Mapping[str, str],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.extensions = dict(extensions)
        """Sent to the broker along with a token (RFC 7628, section 3.1)."""
        self.failure: ReptideError | None = None
        """Why there was no token when one was last asked for: client libraries say that they could not log in."""
        self._fetch, self._clock, self._lock = fetch, clock, Lock()
        self._token, self._renewed_s = Token("", 0.0), 0.0

    def current(self) -> Token:
        """A token that is valid for a while.

        Raises:
            Unavailable: no token can be had just now.
            InputError: the client is refused.

        """
        with self._lock:
            if self._clock() >= self._renewed_s:
                try:
                    self._renew()
                except ReptideError as error:
                    if self._clock() >= self._token.expires_s:
                        self.failure = error
                        raise
            self.failure = None
            return self._token

    def _renew(self) -> None:
        began_s = self._clock()
        self._token = self._fetch()
        self._renewed_s = began_s + RENEWED_AT * (self._token.expires_s - began_s)


def tokens_of(security: Mapping[str, str]) -> Tokens | None:
    """The tokens that the settings ask for; None where they ask for none."""
    if security.get("sasl_mechanism") != "OAUTHBEARER":
        return None
    extensions = _pairs(security.get("sasl_oauth_extensions", ""))
    if FUNCTION in security:
        return Tokens(_of_function(security[FUNCTION]), extensions)
    endpoint, client, secret = (security[name] for name in ENDPOINT)
    return Tokens(_of_endpoint(endpoint, client, secret, security.get("sasl_oauth_scope")), extensions)


def _pairs(text: str) -> dict[str, str]:
    """`logicalCluster=lkc-1,identityPoolId=pool-1` as a mapping."""
    pairs = [part.partition("=") for part in text.split(",") if part]
    if not all(name.strip().isalpha() and value for name, _, value in pairs):
        raise SettingsError(
            "kafka.security.sasl_oauth_extensions: write name=value, several separated by commas; names are letters"
        )
    return {name.strip(): value.strip() for name, _, value in pairs}


def _of_function(name: str) -> Callable[[], Token]:
    where = f"kafka.security.{FUNCTION}"
    try:
        function = named_function(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise SettingsError(f"{where}: it cannot be imported ({type(error).__name__})") from None
    except NotAFunction:
        raise SettingsError(f"{where}: write `module:function`") from None

    def fetch() -> Token:
        """Ask the function, whose errors may quote what it signs."""
        try:
            token, expires_s = function()
        except Exception as error:
            raise Unavailable(f"{where}: it gives no token ({type(error).__name__})") from None
        if not isinstance(token, str) or not isinstance(expires_s, int | float):
            raise InputError(
                f"{where}: it must return (token, seconds since the epoch at which that expires)"
            )
        return Token(token, float(expires_s))

    return fetch


class _NoRedirect(HTTPRedirectHandler):
    """Credentials go to the endpoint that was named, and nowhere else."""

    def redirect_request(self, *_: Any) -> None:
        """Do not follow."""


def _of_endpoint(url: str, client: str, secret: str, scope: str | None) -> Callable[[], Token]:
    parts = urlsplit(url)
    if parts.scheme not in ("https", "http") or not parts.hostname or "@" in url:
        raise SettingsError("kafka.security.sasl_oauth_token_endpoint: write https://HOST/PATH")
    where = f"the token endpoint {parts.scheme}://{parts.netloc}{parts.path}"
    login = b64encode(f"{quote(client, safe='')}:{quote(secret, safe='')}".encode()).decode()
    form = {"grant_type": "client_credentials"} | ({"scope": scope} if scope else {})
    opener = build_opener(_NoRedirect)

    def fetch() -> Token:
        """Ask the endpoint."""
        request = Request(url, urlencode(form).encode(), {"Authorization": f"Basic {login}"})  # noqa: S310
        began_s = time.time()
        try:
            with opener.open(request, timeout=ANSWER_S) as reply:
                said = orjson.loads(reply.read(LONGEST_REPLY))
            return Token(str(said["access_token"]), began_s + float(said.get("expires_in", LIFETIME_S)))
        except HTTPError as error:
            raise _refused(where, error) from None
        except (OSError, HTTPException) as error:
            raise Unavailable(f"{where} does not answer ({type(error).__name__})") from None
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Unavailable(f"{where} answers without a token") from None

    return fetch


def _refused(where: str, error: HTTPError) -> ReptideError:
    with error:
        if error.code not in (400, 401, 403, 404):
            return Unavailable(f"{where} does not answer (HTTP {error.code})")
        try:
            code = orjson.loads(error.read(LONGEST_REPLY))["error"]
        except (OSError, ValueError, KeyError, TypeError):
            code = ""
    why = f"HTTP {error.code}" + (f", {code}" if str(code) in ERRORS else "")
    return InputError(
        f"{where} refuses the client ({why}); check sasl_oauth_client_id, sasl_oauth_client_secret and "
        "sasl_oauth_scope in kafka.security"
    )
