package device

import "crypto/rand"

// Drawer is a Report or a Card that gives what its host chooses at random: one that records a conversation, or repeats it.
type Drawer interface {
	Draw(p []byte)
}

// Draw fills p with what a protocol over a Report or a Card wants chosen at random, such as a challenge or the password of a
// session. Seeds and access codes are not drawn by it.
func Draw(over any, p []byte) {
	if d, ok := over.(Drawer); ok {
		d.Draw(p)
		return
	}
	rand.Read(p) // it never fails (crypto/rand)
}
