# Commands of the administrator's: hooks around a backup, and dumps. They came with the settings. What they say is kept up to a limit, and told
# when they have ended; nothing of it is a line of ours. Needs, where there are any: mkfifo, tee, tail, wc, tr, sed; setsid, or a command that takes
# too long is ended without what it has started.

keep_bytes=32768
hooks_begun=0
hooks_over=
running=
interrupted=
result=failed
bytes=

# Whether the command that runs is not wanted any more.
is_to_end() {
    case "$run_what" in
    before) [ -e "$job_dir/stop" ] ;;
    dump) [ -e "$job_dir/stop" ] || [ -e "$job_dir/borg-over" ] ;;
    *) return 1 ;;
    esac
}

# run FILE LIMIT WHAT OUTPUT: runs the commands in FILE for at most LIMIT seconds, and those before a backup and of dumps only as long as the
# job is not to end. Standard output goes to OUTPUT, or if that is empty to where standard error goes, of which the end is kept. How it ended
# is in $ended, how long it took in $took.
run() {
    run_file=$1 run_limit=$2 run_what=$3 run_out=$4
    run_dir=$job_dir/run.$run_what
    ended="broken 0" took=0
    rm -rf "$run_dir"
    mkdir "$run_dir" 2>/dev/null && mkfifo "$run_dir/said" "$run_dir/kept" "$run_dir/counted" 2>/dev/null || return 1
    # The one in front can be ended, and those behind it tell then what they have.
    tail -c "$keep_bytes" <"$run_dir/kept" >"$run_dir/end" 2>/dev/null 3<&- 5>&- 9>&- &
    run_tail=$!
    wc -c <"$run_dir/counted" >"$run_dir/count" 2>/dev/null 3<&- 5>&- 9>&- &
    run_count=$!
    tee "$run_dir/counted" <"$run_dir/said" >"$run_dir/kept" 2>/dev/null 3<&- 5>&- 9>&- &
    run_reader=$!
    run_began=$(date +%s)
    (
        # Nothing of borg's is for them, nor what holds our locks and pipes.
        unset $borg_variables key known_hosts
        unset TMPDIR
        if [ -n "$login_has_tmpdir" ]; then
            TMPDIR=$login_tmpdir
            export TMPDIR
        fi
        BORGCUBE_JOB=$job BORGCUBE_CLIENT=$client_name BORGCUBE_CONFIG=$config_name BORGCUBE_ARCHIVE=$archive_name
        export BORGCUBE_JOB BORGCUBE_CLIENT BORGCUBE_CONFIG BORGCUBE_ARCHIVE BORGCUBE_HOOK BORGCUBE_RESULT
        cd /
        if [ -n "$run_out" ]; then
            exec >"$run_out"
        else
            exec >"$run_dir/said"
        fi
        umask "$login_umask"
        # The shell has them from a file: everybody on the host can read arguments.
        if command -v setsid >/dev/null 2>&1; then
            exec setsid sh "$run_file"
        fi
        exec sh "$run_file"
    ) </dev/null 2>"$run_dir/said" 3<&- 5>&- 9>&- &
    running=$!
    (
        waited=0
        while kill -0 "$running" && [ "$waited" -lt "$run_limit" ] && ! is_to_end; do
            sleep 1
            waited=$((waited + 1))
        done
        kill -0 "$running" || exit
        if [ "$waited" -ge "$run_limit" ]; then
            : >"$run_dir/late"
        else
            : >"$run_dir/stopped"
        fi
        kill -TERM "-$running" || kill -TERM "$running"
        waited=0
        while [ "$waited" -lt 10 ] && { kill -0 "-$running" || kill -0 "$running"; }; do
            sleep 1
            waited=$((waited + 1))
        done
        kill -KILL "-$running" || kill -KILL "$running"
    ) </dev/null >/dev/null 2>&1 3<&- 5>&- 9>&- &
    run_guard=$!
    wait "$running" 2>/dev/null
    ended="code $?"
    while [ -n "$interrupted" ]; do
        interrupted=
        wait "$running" 2>/dev/null
        ended="code $?"
    done
    if [ -e "$run_dir/late" ] || [ -e "$run_dir/stopped" ]; then
        # It was to go with all that it has started.
        [ ! -e "$run_dir/late" ] || ended="too-late 0"
        [ ! -e "$run_dir/stopped" ] || ended="stopped 0"
        wait "$run_guard"
    else
        # Not by a signal for which there is a trap: one that has just begun might take it for ours, and clean up.
        { kill -KILL "$run_guard" && wait "$run_guard"; } 2>/dev/null
    fi
    running=
    # Whatever it has left behind and still has its output open is not waited for.
    (
        waited=0
        while [ "$waited" -lt 2 ] && kill -0 "$run_reader"; do
            sleep 1
            waited=$((waited + 1))
        done
        kill -TERM "$run_reader"
    ) </dev/null >/dev/null 2>&1 3<&- 5>&- 9>&- &
    run_guard=$!
    wait "$run_reader" 2>/dev/null
    { kill -KILL "$run_guard" && wait "$run_guard"; } 2>/dev/null
    # One that was ended before it had opened anything.
    true <>"$run_dir/kept"
    true <>"$run_dir/counted"
    wait "$run_tail" "$run_count" 2>/dev/null
    took=$(($(date +%s) - run_began))
    return 0
}

# tell WHAT INDEX: the end of what the last command said, and how it ended.
tell() {
    if [ -s "$run_dir/end" ]; then
        total=$(cat "$run_dir/count")
        # Nothing is in it if the file system was full.
        total=$((${total:-0}))
        have=$(($(wc -c <"$run_dir/end")))
        [ "$total" -le "$have" ] || say "cut $1 $2 $total $have"
        # In front of every line, whatever it is; the last one may have no end.
        { cat "$run_dir/end" && echo; } | tr '\r' '\n' | sed -e '/^$/d' -e "s/^/borgcube said $1 $2 /"
    fi
    say "ended $1 $2 $ended $took ${bytes:-}"
}

# before_hooks: in order. Leaves in $hooks_begun how many were started.
before_hooks() {
    while [ "$hooks_begun" -lt "$hook_count" ]; do
        [ ! -e "$job_dir/stop" ] || return 0
        hook=$hooks_begun
        hooks_begun=$((hooks_begun + 1))
        eval "text=\$before_$hook limit=\$limit_$hook policy=\$policy_$hook BORGCUBE_HOOK=\$hook_$hook"
        [ -n "$text" ] || continue
        say "begins before $hook"
        put "$job_dir/command" "$text"
        BORGCUBE_RESULT=
        run "$job_dir/command" "$limit" before ''
        tell before "$hook"
        [ "$ended" = "code 0" ] || [ "$policy" = warn ] || [ -e "$job_dir/stop" ] ||
            fail hook-failed "$hook"
    done
}

# end_running: the command that runs, with all that it has started, whether or not whoever was to see to that still does.
end_running() {
    (
        # Whoever sees to it takes up to ten seconds.
        waited=0
        while [ "$waited" -lt 15 ] && kill -0 "$running"; do
            sleep 1
            waited=$((waited + 1))
        done
        kill -KILL "-$running" || kill -KILL "$running"
    ) </dev/null >/dev/null 2>&1 3<&- 5>&- 9>&- &
    run_guard=$!
    interrupted=yes
    while [ -n "$interrupted" ]; do
        interrupted=
        wait "$running" 2>/dev/null
    done
    running=
    { kill -KILL "$run_guard" && wait "$run_guard"; } 2>/dev/null
}

# after_hooks: those of the ones before that were started, the last one first. Whatever happens, and once.
after_hooks() {
    [ -z "$hooks_over" ] || return 0
    hooks_over=yes
    # Not ignored: that would be inherited.
    trap 'interrupted=yes' HUP INT TERM PIPE
    if [ -n "$running" ]; then
        : >"$job_dir/stop"
        end_running
    fi
    rm -f "$job_dir/key" "$job_dir/known_hosts"
    [ ! -e "$job_dir/stop" ] || result=stopped
    while [ "$hooks_begun" -gt 0 ]; do
        hooks_begun=$((hooks_begun - 1))
        hook=$hooks_begun
        eval "text=\$after_$hook limit=\$limit_$hook BORGCUBE_HOOK=\$hook_$hook"
        [ -n "$text" ] || continue
        say "begins after $hook"
        put "$job_dir/command" "$text"
        BORGCUBE_RESULT=$result
        run "$job_dir/command" "$limit" after ''
        tell after "$hook"
    done
}

# is_gone PID SECONDS: whether it ends in that time.
is_gone() {
    waited=0
    while kill -0 "$1" 2>/dev/null; do
        [ "$waited" -lt "$2" ] || return 1
        sleep 1
        waited=$((waited + 1))
    done
}

# end_borg: without an archive. At SIGINT borg 1.2 and newer want to finish the file they read, which is the one that is not to be finished, and
# Python tells at length where it was; at SIGTERM it just ends, also while it starts.
end_borg() {
    waited=0
    until [ -s "$job_dir/pid" ] || [ -e "$job_dir/borg-over" ] || [ "$waited" -ge 10 ]; do
        sleep 1
        waited=$((waited + 1))
    done
    read -r borg_pid <"$job_dir/pid" || return 0
    kill -TERM "$borg_pid"
    is_gone "$borg_pid" 20 || kill -KILL "$borg_pid"
} 2>/dev/null

# follow LIMIT: what the command of a dump has written may be on its way still; what it has left behind may go on writing, and hold the pipe
# open for ever. Waits for $feeder, and says in $code how that ended.
follow() {
    (
        waited=$took
        while [ "$waited" -lt "$1" ] && [ "$ended" = "code 0" ] && [ ! -e "$job_dir/stop" ] && kill -0 "$feeder"; do
            sleep 1
            waited=$((waited + 1))
        done
        kill -0 "$feeder" || exit
        : >"$job_dir/held"
        kill -KILL "$feeder"
    ) </dev/null >/dev/null 2>&1 3<&- 5>&- 9>&- &
    run_guard=$!
    wait "$feeder" 2>/dev/null
    code=$?
    { kill -KILL "$run_guard" && wait "$run_guard"; } 2>/dev/null
}

# spool_dumps: those that are written to the disk, before borg begins. What fails in between is no whole dump.
spool_dumps() {
    for dump in $spooled; do
        [ ! -e "$job_dir/stop" ] || return 0
        eval "text=\$dump_$dump limit=\$dump_limit_$dump BORGCUBE_HOOK=\$dump_name_$dump file=\$job_dir/borgcube-dumps/\$dump_name_$dump"
        say "begins dump $dump"
        put "$job_dir/command" "$text"
        # By way of a pipe: at its end nobody writes any more, and nothing is cut off.
        rm -f "$job_dir/raw" "$job_dir/held"
        mkfifo "$job_dir/raw" || fail client-cache "no named pipe can be made in $base"
        cat <"$job_dir/raw" >"$file" 2>"$job_dir/raw-error" 3<&- 9>&- &
        feeder=$!
        run "$job_dir/command" "$limit" dump "$job_dir/raw"
        follow "$limit"
        bytes=$(($(wc -c <"$file" 2>/dev/null || echo 0)))
        if [ "$code" -ne 0 ] && [ ! -e "$job_dir/held" ]; then
            # Whatever became of the command: it had nobody to write to.
            read -r error <"$job_dir/raw-error" || error="what copies dump $BORGCUBE_HOOK was killed ($code)"
            tell dump "$dump"
            fail client-cache "$error"
        elif [ "$ended" = "code 0" ] && [ -e "$job_dir/stop" ]; then
            ended="stopped 0"
        elif [ "$ended" = "code 0" ] && [ "$code" -ne 0 ]; then
            ended="held-open 0"
        elif [ "$ended" = "code 0" ] && [ "$bytes" -eq 0 ]; then
            ended="empty 0"
        fi
        tell dump "$dump"
        bytes=
        [ "$ended" = "code 0" ] || [ -e "$job_dir/stop" ] || fail dump-failed "$dump"
    done
}

# feed_dumps: those that are streamed, each when borg opens its pipe. borg sees the end of one only when its command has ended well: as
# long as we have the pipe open, too, there is no end, and no archive.
feed_dumps() {
    ended="code 0"
    for dump in $streamed; do
        eval "text=\$dump_$dump limit=\$dump_limit_$dump BORGCUBE_HOOK=\$dump_name_$dump pipe=\$job_dir/borgcube-dumps/\$dump_name_$dump"
        [ -p "$pipe" ] || break
        exec 5>"$pipe"
        # It was borg that opened it, or those who know that borg has ended.
        [ ! -e "$job_dir/borg-over" ] || break
        say "begins dump $dump"
        put "$job_dir/dump-command" "$text"
        rm -f "$job_dir/raw" "$job_dir/counted" "$job_dir/held"
        mkfifo "$job_dir/raw" "$job_dir/counted"
        wc -c <"$job_dir/counted" >"$job_dir/count" 5>&- &
        counter=$!
        tee "$job_dir/counted" <"$job_dir/raw" >&5 2>/dev/null &
        feeder=$!
        run "$job_dir/dump-command" "$limit" dump "$job_dir/raw"
        follow "$limit"
        true <>"$job_dir/counted"
        wait "$counter" 2>/dev/null
        bytes=$(cat "$job_dir/count")
        # Nothing is in it if the file system was full; a shell that ends here would be an end of the dump to borg.
        bytes=$((${bytes:-0}))
        if [ "$ended" = "code 0" ]; then
            if [ -e "$job_dir/stop" ]; then
                ended="stopped 0"
            elif [ "$code" -ne 0 ] && [ -e "$job_dir/held" ]; then
                ended="held-open 0"
            elif [ "$code" -ne 0 ]; then
                ended="unread 0"
            elif [ "$bytes" -eq 0 ]; then
                ended="empty 0"
            fi
        fi
        [ ! -e "$job_dir/borg-over" ] || [ "$ended" = "stopped 0" ] || ended="unread 0"
        tell dump "$dump"
        bytes=
        if [ "$ended" != "code 0" ]; then
            end_borg
            break
        fi
        exec 5>&-
    done
    # Until borg has ended nothing that it reads comes to an end.
    [ "$ended" = "code 0" ] || while [ ! -e "$job_dir/borg-over" ]; do sleep 1; done
    : >"$job_dir/fed"
}

# see_to_dumps: feeds them, in a shell of its own. If that was killed, nobody knows whether they were whole: borg is not to make an archive of them.
see_to_dumps() {
    (feed_dumps)
    [ -e "$job_dir/fed" ] || [ -e "$job_dir/borg-over" ] || end_borg
    : >"$job_dir/fed"
}

# let_dumps_go: borg has ended; whoever still waits for it does so no longer.
let_dumps_go() {
    : >"$job_dir/borg-over"
    waited=0
    while [ ! -e "$job_dir/fed" ] && [ "$waited" -lt 30 ]; do
        for dump in $streamed; do
            eval "pipe=\$job_dir/borgcube-dumps/\$dump_name_$dump"
            [ ! -p "$pipe" ] || true <>"$pipe"
        done
        sleep 1
        waited=$((waited + 1))
    done
    [ -e "$job_dir/fed" ] || kill -KILL "$feeding" 2>/dev/null
    wait "$feeding" 2>/dev/null
}

# make_dumps: their directory, and the pipes of those that are streamed.
make_dumps() {
    mkdir "$job_dir/borgcube-dumps" || return 1
    for dump in $streamed; do
        eval "mkfifo \"\$job_dir/borgcube-dumps/\$dump_name_$dump\"" || return 1
    done
    for dump in $streamed $spooled; do
        eval "file=/borgcube-dumps/\$dump_name_$dump"
        if [ "$path_count" -gt 0 ] && { [ -e "$file" ] || [ -L "$file" ]; }; then
            echo "$file is on the client, and would have the place of the dump in the archive: move it away"
            return 1
        fi
    done
}
