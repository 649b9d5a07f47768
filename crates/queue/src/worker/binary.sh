# Which borg runs on the client: its own, or a binary of the server's, which comes over standard input and stays in the cache directory for
# the next time. Needs for that: uname, wc, chmod, and one of sha256sum, shasum, openssl, sha256.

errors=/dev/null

# To say its version takes borg as long as to copy a thousand files, so what it said is kept: until the program is another, for this day, and no
# longer than borg ends well. The session learns from borg itself which one it is.
# recall PROGRAM: leaves what it said in $version.
recall() {
    looks=
    today=$(date +%F 2>/dev/null) && found=$(stat -L -c '%d %i %s %z' "$1" 2>/dev/null) || return 1
    looks="$1 $found $today"
    { read -r known && read -r version; } 2>/dev/null <"$base/borg-version" && [ "$known" = "$looks" ] && [ -n "$version" ]
}
remember() {
    [ -n "$looks" ] || return 0
    { printf '%s\n' "$looks" "$version" >"$base/borg-version.$$" && mv -f "$base/borg-version.$$" "$base/borg-version"; } 2>/dev/null ||
        rm -f "$base/borg-version.$$"
}
forget() { rm -f "$base/borg-version"; }

# judge PROGRAM: whether it is a borg that will do. Its version is in $version; if not, why not is in $trouble and $told.
judge() {
    trouble=client-borg-missing
    program=$(command -v "$1" 2>/dev/null) || { told="$1 was not found on the client" && return 1; }
    if ! recall "$program"; then
        version=$("$1" --version 2>"$errors") || { told="$1 can't be run on the client" && return 1; }
        remember
    fi
    trouble=client-borg-outdated
    told=$version
    numbers=${version##* }
    major=${numbers%%.*}
    minor=${numbers#*.}
    patch=${minor#*.}
    minor=${minor%%.*}
    patch=${patch%%[!0-9]*}
    case "$major$minor${patch:=0}" in
    *[!0-9]* | '') return 1 ;;
    esac
    [ "$major" -eq 1 ] || return 1
    [ "$minor" -gt 1 ] || { [ "$minor" -eq 1 ] && [ "$patch" -ge 10 ]; }
}

# find_borg: leaves the program in $borg and its version in $version.
find_borg() {
    if [ "$borg_binary" = always ]; then
        trouble=always
        told=
    elif judge "$borg"; then
        say "version $version"
        return
    else
        [ "$trouble" = client-borg-missing ] || say "version $version"
        [ "$borg_binary" = if-needed ] || fail "$trouble" "$told"
    fi
    fetch_binary
    # Unpacks itself at each start. Our own directory has room and lets programs run, or the binary would not be there.
    TMPDIR=$unpacked
    export TMPDIR
    errors=$unpacked/said
    borg=$binary
    if ! judge "$borg"; then
        why=
        [ "$trouble" = client-borg-outdated ] || read -r why <"$errors" || :
        fail client-borg-binary "the binary of this server can't be used on the client: ${why:-$told}"
    fi
    say "version $version"
}

# checksum FILE: its SHA-256.
checksum() {
    if command -v sha256sum >/dev/null 2>&1; then
        sum=$(sha256sum <"$1")
    elif command -v shasum >/dev/null 2>&1; then
        sum=$(shasum -a 256 <"$1")
    elif command -v openssl >/dev/null 2>&1; then
        sum=$(openssl dgst -sha256 -r <"$1")
    else
        sum=$(sha256 -q <"$1")
    fi && printf %s "${sum%% *}"
}

# libc: glibc-2.36, musl, or - for what is not known.
libc() {
    found=$(getconf GNU_LIBC_VERSION 2>/dev/null) || found=$(ldd --version 2>&1)
    found=$(printf '%s\n' "$found" | { read -r line && printf %s "$line"; })
    case "$found" in
    musl*) printf musl ;;
    "glibc "* | *GLIBC* | *"GNU libc"*) printf 'glibc-%s' "${found##* }" ;;
    *) printf - ;;
    esac
}

# fetch_binary: the worker says which one, and sends it unless it is here already. It is in $binary, and $unpacked is a directory for it.
fetch_binary() {
    # Borg calls itself by the name of its file.
    binary=$base/binary/borg
    unpacked=$base/unpacked-$(uname -n)-
    # Of those that were killed.
    for left in "$unpacked"*; do
        [ ! -d "$left" ] || kill -0 "${left##*-}" 2>/dev/null || rm -rf "$left"
    done
    unpacked=$unpacked$$
    trap 'rm -rf "$unpacked"; cleanup' EXIT
    error=$(mkdir -p "$unpacked" "$base/binary" 2>&1) || fail client-cache "$error"

    checksum /dev/null >/dev/null 2>&1 || fail client-borg-binary "the client has no program for checksums: sha256sum, shasum or openssl"
    kept=-
    [ ! -f "$binary" ] || kept=$(checksum "$binary")
    say "binary $(uname -s) $(uname -m) $(getconf LONG_BIT 2>/dev/null || printf -) $(libc) ${kept:--} $trouble $told"
    answer=$(take 20)
    answer=${answer%% *}
    case "$answer" in
    keep) return ;;
    none) fail "$trouble" "$told" ;;
    *[!0-9]* | '') exit 1 ;;
    esac
    wanted=$(take 65)
    error=$({ take "$answer" >"$unpacked/borg"; } 2>&1) || fail client-cache "$error"
    # dd is content with an input that ends early.
    [ "$(wc -c <"$unpacked/borg")" -eq "$answer" ] || exit 1
    [ "$(checksum "$unpacked/borg")" = "$wanted" ] || fail client-borg-binary "the binary that arrived on the client has another checksum than the one that was sent"
    # From here on it is used, and the one before no more.
    error=$({ chmod 700 "$unpacked/borg" && mv -f "$unpacked/borg" "$binary"; } 2>&1) || fail client-cache "$error"
}

