#!/bin/sh
case "$*" in
*fps_mode*)
  echo "Unrecognized option 'fps_mode'." >&2
  echo "Error splitting the argument list: Option not found" >&2
  exit 1
  ;;
*framecrc*) printf '0, 0, 0, 1, 9, 0x1\n' ;;
*-vsync\ passthrough*) printf 'P6\n1 1\n255\nabc' ;;
esac
