"""The page at `/`: files of web/ and the headers that keep it to this server."""

from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

WEB = Path(__file__).with_name("web")
TYPES = {"page.css": "text/css", "icon.svg": "image/svg+xml",
         **dict.fromkeys(("answers.js", "page.js", "question.js"), "text/javascript")}
HEADERS = {
    # Nothing is loaded from, or sent to, anywhere but this server, and text never becomes markup.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
                               "img-src 'self'; connect-src 'self'; base-uri 'none'; "
                               "form-action 'none'; frame-ancestors 'none'; "
                               "require-trusted-types-for 'script'; trusted-types 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",  # an updated server is never shown with an old page
}


def wants_page(request: Request) -> bool:
    """Whether a browser asks; programs get JSON at the same address."""
    return "text/html" in request.headers.get("accept", "")


def page() -> Response:
    """Give the page; its address is also that of a JSON answer, so caches look at Accept."""
    return FileResponse(WEB / "index.html", media_type="text/html",
                        headers={**HEADERS, "Vary": "Accept"})


async def _file(request: Request) -> Response:
    name = request.path_params["file"]
    if name not in TYPES:
        raise HTTPException(404)
    return FileResponse(WEB / name, media_type=TYPES[name], headers=HEADERS)


ROUTES = [Route("/web/{file}", _file)]
