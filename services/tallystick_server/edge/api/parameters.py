"""Parameters that several routes share, with their descriptions in the OpenAPI document."""

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
    QueryParameter(description="cursor: the `next` of the previous response; the filters must be the same"),
]
Page = Annotated[int, QueryParameter(ge=0, le=MAX_PAGE, description="page number, from 0")]
PageSize = Annotated[
    int, QueryParameter(name="pageSize", ge=1, le=MAX_PAGE_SIZE, description="entries per page")
]
