#!/bin/sh
# Runs Asterisk as a child of process 1: the kernel does not deliver SIGKILL to process 1 from inside its own container,
# and a crash of Asterisk must be possible there and must end the container with its status.
set -u

# A kill leaves the control socket and the pid file behind.
mkdir -p /run/asterisk
rm -f /run/asterisk/asterisk.ctl /run/asterisk/asterisk.pid
chown asterisk:asterisk /run/asterisk

asterisk -f -U asterisk -G asterisk &
child=$!
# `docker stop`: a normal stop of Asterisk at once.
trap 'kill -TERM "$child" 2>/dev/null' TERM INT

status=0
wait "$child" || status=$?
# wait returns early when a trap ran; then Asterisk is still on its way out.
while kill -0 "$child" 2>/dev/null; do
    wait "$child" || status=$?
done
exit "$status"
