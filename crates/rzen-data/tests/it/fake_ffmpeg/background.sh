#!/bin/sh
for word; do
  case "$word" in file:*) clip=${word#file:} ;; esac
done
sleep 600 &
echo $! >"$clip.pid"
wait
