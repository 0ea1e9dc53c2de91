"""Commands of `device-placement`, a file each."""
