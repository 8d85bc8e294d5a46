#!/bin/sh
case "$*" in
*framecrc*) printf '0, 0, 0, 1, 9, 0x1\n' ;;
*) printf 'P6\n1 1\n255\nabc' ;;
esac
kill -9 $$
