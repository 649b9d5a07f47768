# Hashes files of the client for a restore test. What comes before this line is in binary.sh, of which only checksum is used. Paths come over
# standard input, a line each, in the form of printf's %b; the last line is `end`. Standard output carries a line a file to the worker.
# Needs: sh, dd, printf, stat, and one of sha256sum, shasum, openssl, sha256.
set -u
LC_ALL=C
TZ=UTC0
export LC_ALL TZ

say() { printf 'borgcube %s\n' "$*"; }

# Bytes, times of modification and of status change in seconds, and the first of the two as text with its fraction.
looks() { stat -c '%s %Y %Z %y' "$1" 2>/dev/null || stat -f '%z %m %c -' "$1" 2>/dev/null || printf '%s' -; }

checksum /dev/null >/dev/null 2>&1 || {
    say "failed the client has no program for checksums: sha256sum, shasum or openssl"
    exit 0
}
say started
number=0
while IFS= read -r line && [ "$line" != end ]; do
    # The dot keeps line breaks at the end of a name.
    path=$(printf '%b.' "$line")
    path=${path%.}
    if [ -L "$path" ] || [ ! -f "$path" ] || [ ! -r "$path" ]; then
        say "gone $number"
    else
        before=$(looks "$path")
        hash=$(checksum "$path" 2>/dev/null) || hash=-
        say "file $number ${hash:--} $before / $(looks "$path")"
    fi
    number=$((number + 1))
done
say end
