// Package vault keeps tokens and their secrets in one bbolt file.
package vault
