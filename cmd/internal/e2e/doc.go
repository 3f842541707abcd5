// Package e2e is the desk on a real kernel: tests for the guest that make e2e boots, where emulated keys are
// attached to the kernel's USB, the officer is an unprivileged user, and the TPM is /dev/tpmrm0.
//
// They look with programs that know nothing of the desk: ykinfo, ykpersonalize, ykchalresp, nitrocli, udevadm, the
// kernel's usbmon and evdev. Figures are printed as "figure NAME VALUE". The tests are root, because somebody
// must plug, pull and touch the keys; what is tested is not. Tag guest keeps them out of other machines.
package e2e
