"""What a client is told when a request cannot be answered, in the form of OpenAI's API."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse, Response


class ApiError(Exception):
    """A request that is refused.

    Args:
        status: of HTTP.
        message: what is wrong, and what is accepted.
        code: a short name for programs.
        param: the field of the request that is at fault.
        retry_after: seconds after which the same request may succeed.
        close: whether the connection ends with the answer, because more of the request might come.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str,
        param: str | None = None,
        retry_after: int | None = None,
        close: bool = False,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        if close:
            self.headers["Connection"] = "close"

    def response(self) -> JSONResponse:
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        body = {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}
        return JSONResponse(body, self.status, self.headers)


async def answer_error(request: Request, error: Exception) -> Response:
    """The response to an :class:`ApiError`."""
    assert isinstance(error, ApiError)
    return error.response()


async def answer_http_error(request: Request, error: Exception) -> Response:
    """The response to an address or a method that does not exist."""
    status = getattr(error, "status_code", 404)
    if status == 405:
        message = f"{request.method} is not accepted at {request.url.path}."
        return ApiError(405, message, code="method_not_allowed").response()
    message = f"there is nothing at {request.url.path}. Try /v1/chat/completions, /caption, or / for a page."
    return ApiError(status, message, code="not_found").response()
