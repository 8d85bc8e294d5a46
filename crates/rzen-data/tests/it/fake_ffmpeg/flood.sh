#!/bin/sh
case "$*" in
*framecrc*) printf '#tb 0: 1/25\n0, 0, 0, 1, 9, 0x1\n' ;;
*) while :; do printf 'P6\n64 64\n255\n%12288s' ' '; done ;;
esac
