#!/bin/sh
# A certificate authority for tests and for machines of one's own: makes FOLDER/authority.pem unless it is there, and
# for each name a certificate and key, valid for a year. Run it again for new ones where half of that has passed or the
# hosts are others; the authority stays.
#   services/tallystick_server/runtime/authority.sh FOLDER nats=nats.internal postgres=db.internal,10.0.0.7 edge=localhost,127.0.0.1
set -eu
umask 077
[ $# -ge 2 ] || { echo "usage: authority.sh FOLDER NAME=HOST[,HOST...] ..." >&2; exit 64; }
mkdir -p "$1"
cd "$1"
shift
key() { openssl genpkey -quiet -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null || openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out "$1" 2>/dev/null; }
if [ ! -f authority.pem ]; then
    rm -f -- *.ext
    key authority.key
    openssl req -x509 -new -key authority.key -sha256 -days 3650 -subj "/CN=Tallystick authority" \
        -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign,cRLSign" -out authority.new
    mv authority.new authority.pem
fi
for wanted in "$@"; do
    name=${wanted%%=*}
    alternatives=$(echo "${wanted#*=}" | tr ',' '\n' | sed -E 's/^([0-9.]+|.*:.*)$/IP:\1/; t; s/^/DNS:/' | paste -s -d ,)
    printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\nkeyUsage=digitalSignature\nbasicConstraints=CA:FALSE\nauthorityKeyIdentifier=keyid\n' \
        "$alternatives" >"$name.new"
    if cmp -s "$name.new" "$name.ext" && openssl x509 -checkend 15768000 -noout -in "$name.pem" >/dev/null; then
        rm "$name.new"
        continue
    fi
    rm -f "$name.ext"
    key "$name.key"
    openssl req -new -key "$name.key" -subj "/CN=$name" -out "$name.csr"
    openssl x509 -req -in "$name.csr" -CA authority.pem -CAkey authority.key -CAcreateserial -sha256 -days 365 \
        -extfile "$name.new" -out "$name.pem" 2>/dev/null
    rm "$name.csr"
    mv "$name.new" "$name.ext" # which says that the pair above is whole
done
