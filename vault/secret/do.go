package secret

// Do calls fn. In a program built with GOEXPERIMENT=runtimesecret, for linux/amd64 or linux/arm64, the registers and
// the stack that fn used are erased when it returns or panics, and what it allocated is erased once the garbage
// collector finds it unreachable, even if it was kept and used long after. See the package comment for what that covers.
//
// fn must be short: the collector waits for it, and so does the rest of the program. Nothing that lives long but is not
// secret should be allocated in it: erasing costs time.
func Do(fn func()) { do(fn) }

// Erases tells whether Do erases anything in this build.
func Erases() bool { return erases }
