#!/bin/sh
case "$*" in
*framecrc*) for i in 1 2 3 4 5 6 7 8 9; do echo "0, $i, $i, 1, 9, 0x1"; done ;;
*)
  echo "[h264 @ 0x1] error while decoding MB 3 4" >&2
  printf 'P6\n1 1\n255\nabcP6\n1 1\n255\ndef'
  ;;
esac
