"""Why a request about second factors is refused."""

from controller.ports.errors import ControllerError


class FactorError(ControllerError):
    """A request about factors that is refused; `code` is for programs, the text for people."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class FactorWrongError(FactorError):
    """A second factor was given and is not right."""

    def __init__(self) -> None:
        super().__init__("factor_wrong", "this is not right, or was used before: try again with a new code")


class FactorSlowedError(FactorError):
    """Too many wrong factors; `wait`: seconds until the next one is looked at."""

    def __init__(self, wait: float) -> None:
        super().__init__("too_many_attempts", f"too many wrong attempts: wait {int(wait) + 1} seconds")
        self.wait = wait
