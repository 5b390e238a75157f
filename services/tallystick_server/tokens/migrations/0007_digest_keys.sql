-- Tokens are found by the hash of their digest, so that a digest in a URL, which is EmailEngine's id of a token, travels no
-- further than the edge.
create index token_by_key on token (sha256(digest));
