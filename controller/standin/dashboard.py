"""What of EMQX's dashboard an audit meets: one user, logins with their lock, tokens, API keys, the node's cookie."""

import hmac
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

MAX_FAILURES: Final = 5  # wrong passwords within `WINDOW_SECONDS` before the user is locked
WINDOW_SECONDS: Final = 300.0
LOCK_SECONDS: Final = 600.0
MAX_TOKENS: Final = 100


@dataclass(slots=True)
class Dashboard:
    """The dashboard user; unlike EMQX with a random password, so that admin/public only works if configured."""

    username: str
    password: str
    api_keys: list[dict[str, Any]] = field(default_factory=list)
    cookie: str = "standin-has-no-distribution"
    _failures: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_FAILURES))
    _locked_until: float = 0.0
    _tokens: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_TOKENS))

    def log_in(self, username: str, password: str, now: float, new_token: Callable[[], str]) -> tuple[str, str]:
        """Returns `(token, "")`, or `("", code)` with EMQX's error code."""
        if now < self._locked_until:
            return "", "LOGIN_LOCKED"
        if username == self.username and hmac.compare_digest(password.encode(), self.password.encode()):
            token = new_token()
            self._tokens.append(token)
            return token, ""
        self._failures.append(now)
        if len(self._failures) == MAX_FAILURES and now - self._failures[0] < WINDOW_SECONDS:
            self._locked_until = now + LOCK_SECONDS
        return "", "BAD_USERNAME_OR_PWD"

    def is_valid_token(self, token: str) -> bool:
        """Whether a login returned this token."""
        return any(hmac.compare_digest(known.encode(), token.encode()) for known in self._tokens)
