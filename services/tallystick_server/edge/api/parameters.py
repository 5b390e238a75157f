"""Parameters that several routes take, with what the documentation says about them."""

from typing import Annotated

from litestar.params import PathParameter, QueryParameter

from tallystick.contracts.messages import MAX_PAGE, MAX_PAGE_SIZE

TokenId = Annotated[str, PathParameter(description="the token's public id, `tok_...`")]
TokenIdOrDigest = Annotated[
    str,
    PathParameter(
        description="the token's public id, `tok_...`, or EmailEngine's id of an imported token, 64 hexadecimal digits"
    ),
]
Account = Annotated[str, PathParameter(description="the account's name")]
After = Annotated[
    str | None,
    QueryParameter(
        description="where to go on: the `next` of the answer before, whose filters have to be the same"
    ),
]
Page = Annotated[int, QueryParameter(ge=0, le=MAX_PAGE, description="which page; the first is 0")]
PageSize = Annotated[
    int, QueryParameter(name="pageSize", ge=1, le=MAX_PAGE_SIZE, description="how many on a page")
]
