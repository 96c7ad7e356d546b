// One goroutine, files and environment: nothing whose number of calls depends on the scheduler but what the runtime does itself.
package main

import "os"

func main() {
	for i := 0; i < 10; i++ {
		os.Getppid()
	}
	os.Stdout.WriteString("ok tiny\n")
	os.Exit(len(os.Args) + 2)
}
