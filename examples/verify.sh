#!/bin/sh
# Asks, with the `nats` command line, whether the token on standard input covers a scope, and exits 0 if it does.
#   export NATS_URL=$(tallystick nats-url)
#   echo "$TOKEN" | examples/verify.sh orders:read
set -eu
# The NATS user's own inbox, where no other user may listen.
user=$(printf %s "$NATS_URL" | sed 's|.*//\([^:]*\):.*|\1|')
read -r token
# By standard input, so that no other program sees it among arguments. Only the digest goes on.
digest=$(printf %s "$token" | sha256sum | cut -d ' ' -f 1)
answer=$(nats --inbox-prefix "_INBOX.$user" request --raw --timeout 1s tallystick.v1.tokens.verify "{\"digest\": \"$digest\", \"scope\": \"$1\"}")
echo "$answer"
case $answer in *'"code":"active"'*) ;; *) exit 1 ;; esac
