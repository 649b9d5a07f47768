# One backup. What comes before this line is in begin.sh and hooks.sh.

# One at a time on this host and repository, whatever became of the last one: they share a cache. The lock is inherited by borg and ends
# with it.
lock "lock-$repository_id" backup || :
find_borg

look_for_paths() {
    missing=0
    for path in $literal_paths; do
        eval "path=\$path_$path"
        [ -e "$path" ] || [ -L "$path" ] || { say "missing $path"; missing=$((missing + 1)); }
    done
    if [ "$missing" -gt 0 ] && [ "$missing" -eq "$path_count" ] && [ "$dump_count" -eq 0 ]; then
        fail path-missing "no path of the config exists on the client"
    fi
}
# Hooks may bring paths into being.
[ "$hook_count" -gt 0 ] || look_for_paths

job_dir=$base/job-$repository_id-$job
rm -rf "$base/job-$repository_id"-*
error=$(mkdir "$job_dir" 2>&1) || fail client-cache "$error"

BORG_BASE_DIR=$base
BORG_CACHE_DIR=$base/cache
BORG_SECURITY_DIR=$job_dir/security
cache=$BORG_CACHE_DIR/$repository_id
error=$(mkdir -p "$cache" 2>&1) || fail client-cache "$error"

# What our chunks cache looks like: borg and its version, inode, size and times of the file.
looks() { printf '%s %s' "$version" "$(TZ=UTC0 stat -c '%i %s %y %z' "$cache/chunks" 2>/dev/null)"; }

# The mark of the job that left the cache as it is, if it is still as that job left it. From now on it is nobody's, until borg has ended well.
found=-
if [ -f "$cache/borgcube-mark" ] && [ ! -e "$cache/txn.active" ]; then
    { read -r left && read -r looked; } <"$cache/borgcube-mark" && [ "$looked" = "$(looks)" ] && found=$left
fi
error=$(rm -f "$cache/borgcube-mark" 2>&1) || fail client-cache "$error"

# A transaction that a killed borg left open holds the last good files cache; the rest of it would roll our chunks cache back.
for kept in "$cache"/txn.active/files*; do
    [ ! -f "$kept" ] || mv -f "$kept" "$cache/"
done
error=$(rm -rf "$cache/lock.exclusive" "$cache/lock.roster" "$cache/txn.active" "$cache/txn.tmp" "$cache/chunks.archive.d" "$cache/pre12-meta" 2>&1) ||
    fail client-cache "$error"
say "cache $found"
answer=$(take 20)
answer=${answer%% *}
case "$answer" in
keep) ;;
*[!0-9]* | '') exit 1 ;;
*)
    # A new file: whatever still has the old one open keeps that.
    rm -f "$cache/chunks"
    error=$({ take "$answer" >"$cache/chunks"; } 2>&1) || fail client-cache "$error"
    # dd is content with an input that ends early.
    [ "$(wc -c <"$cache/chunks")" -eq "$answer" ] || exit 1
    ;;
esac
error=$({
    printf '%s\n' '[cache]' 'version = 1' "repository = $repository_id" "manifest = $manifest_id" >"$cache/config" &&
        : >"$cache/chunks.archive.d" && : >>"$cache/files.$BORG_FILES_CACHE_SUFFIX"
} 2>&1) || fail client-cache "$error"
# The worker holds our standard input open as long as it wants the backup. At its end borg gets the chance to write a checkpoint.
exec 3<&0
(
    cat <&3 >/dev/null
    : >"$job_dir/stop"
    waited=0
    until [ -s "$job_dir/pid" ] || [ "$waited" -ge 10 ]; do
        sleep 1
        waited=$((waited + 1))
    done
    read -r pid <"$job_dir/pid" || exit
    let_go
    # At the first SIGINT borg 1.2 and newer write a checkpoint and then finish the file they read, however large;
    # a second one ends them. The cache's config is replaced when the checkpoint is complete.
    before=$(ls -i "$cache/config")
    kill -INT "$pid"
    waited=0
    while [ "$waited" -lt 60 ] && kill -0 "$pid"; do
        sleep 1
        waited=$((waited + 1))
        if [ -n "$before" ] && [ "$(ls -i "$cache/config")" != "$before" ]; then
            before=
            kill -INT "$pid"
        fi
    done
    kill -KILL "$pid"
) >/dev/null 2>&1 9>&- &
watcher=$!

finally() { after_hooks; }
before_hooks
[ "$hook_count" -eq 0 ] || look_for_paths
if [ "$dump_count" -gt 0 ]; then
    error=$(make_dumps 2>&1) || fail dump-failed "- $error"
    spool_dumps
fi
[ ! -e "$job_dir/stop" ] || exit 0
# Not before: the key of this job is not for the commands of others.
make_roads
say prepared

# With dumps in the directory that has them: their paths are those of the archive.
input=/dev/null
feeding=
if [ "$dump_count" -gt 0 ]; then
    cd "$job_dir" || exit 1
    [ -z "$stdin_dump" ] || eval "input=\$job_dir/borgcube-dumps/\$dump_name_$stdin_dump"
    if [ -n "$streamed" ]; then
        see_to_dumps 3<&- 9>&- &
        feeding=$!
    fi
fi

say started
run_borg "$@" <"$input"
code=$?
kill "$watcher" 2>/dev/null
[ -z "$feeding" ] || let_dumps_go
# For the next job. Whether this one ended well in the end, the server remembers.
case "$code" in
0 | 1 | 10[0-9] | 11[0-9] | 12[0-7])
    result=success
    [ -e "$cache/txn.active" ] || ! stat -c %i "$cache/chunks" >/dev/null 2>&1 ||
        { printf '%s\n' "$mark" "$(looks)" >"$cache/borgcube-mark.new" && mv -f "$cache/borgcube-mark.new" "$cache/borgcube-mark"; } 2>/dev/null
    ;;
*) forget ;;
esac
say "exit $code"
cleanup
job_dir=
say clean
