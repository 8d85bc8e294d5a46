#!/bin/sh
case "$*" in
*framecrc*)
  echo "[NULL @ 0x1] Invalid NAL unit size" >&2
  echo "[mov @ 0x2] stream 0, offset 0x3397: partial file" >&2
  for i in 0 1; do echo "0, $i, $i, 1, 9, 0x1"; done
  ;;
*) printf 'P6\n1 1\n255\nabcP6\n1 1\n255\ndef' ;;
esac
