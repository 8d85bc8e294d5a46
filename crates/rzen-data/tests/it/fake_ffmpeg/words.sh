#!/bin/sh
for word; do
  case "$word" in file:*) clip=${word#file:} ;; esac
done
printf '%s\n' "$@" >>"$clip.words"
case "$*" in
*framecrc*) printf '0, 0, 0, 1, 9, 0x1\n' ;;
*) printf 'P6\n1 1\n255\nabc' ;;
esac
