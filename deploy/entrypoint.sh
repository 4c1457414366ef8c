#!/bin/sh
# Runs a service's command, and holds a failed one back before it ends. Docker restarts a container at once when it had
# run for ten seconds, and loading models takes as long, so a wrong setting would otherwise keep a core busy for ever.

if [ "$#" -eq 0 ]; then
    echo "entrypoint.sh: no command given" >&2
    exit 64
fi

# Processes of one service share this folder (API_WORKERS); of the container's former life nothing counts.
[ -z "$HEARTBEAT_DIR" ] || rm -f "$HEARTBEAT_DIR"/*.loop
# Where several API processes add up what /metrics shows; one alone needs none.
# In memory: on a full disk the kernel would end whoever touches a new page of these files.
several=
if [ "${API_WORKERS:-1}" != 1 ] && [ "$1" = fastapi ]; then
    several=1
    PROMETHEUS_MULTIPROC_DIR=$(mktemp -d -p /dev/shm) || exit 73
    export PROMETHEUS_MULTIPROC_DIR
fi

stopping=
child=
on_signal() {
    stopping=1
    [ -z "$child" ] || kill -TERM "$child" 2>/dev/null
}
trap on_signal TERM INT

"$@" &
child=$!
[ -z "$stopping" ] || kill -TERM "$child"
# A signal ends `wait` early; the command has ended only once it is gone.
wait "$child"
status=$?
while kill -0 "$child" 2>/dev/null; do
    wait "$child"
    status=$?
done
child=

# The process that supervises several ends with 0 where none of them can start.
[ -z "$several" ] || [ -n "$stopping" ] || [ "$status" -ne 0 ] || status=1
pause_s=${RESTART_PAUSE_S:-30}
if [ "$status" -ne 0 ] && [ -z "$stopping" ]; then
    echo "$1 ended with status $status; it may start again in $pause_s s" >&2
    # Second by second: a signal is looked at between them.
    while [ "$pause_s" -gt 0 ] && [ -z "$stopping" ]; do
        sleep 1
        pause_s=$((pause_s - 1))
    done
fi
exit "$status"
