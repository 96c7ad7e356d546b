// Goroutines, channels, timers, signals with preemption, a child process, and HTTP on the loopback interface.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"time"
)

func fail(what string, values ...any) {
	fmt.Println("FAIL", what, values)
	os.Exit(1)
}

func goroutines() {
	var wait sync.WaitGroup
	sums := make(chan int, 100)
	for i := 0; i < 100; i++ {
		wait.Add(1)
		go func(i int) {
			defer wait.Done()
			sum := 0
			for j := 0; j < 1000; j++ {
				sum += j * i
				if j%100 == 0 {
					syscall.Getppid()
					runtime.Gosched()
				}
			}
			sums <- sum
		}(i)
	}
	wait.Wait()
	close(sums)
	total := 0
	for sum := range sums {
		total += sum
	}
	if total != 499500*4950 {
		fail("sum", total)
	}
}

// Loops that make no call are preempted by SIGURG only.
func preemption() {
	runtime.GOMAXPROCS(2)
	stop := time.Now().Add(200 * time.Millisecond)
	var wait sync.WaitGroup
	for i := 0; i < 4; i++ {
		wait.Add(1)
		go func() {
			defer wait.Done()
			x := uint64(1)
			for time.Now().Before(stop) {
				for j := 0; j < 10000; j++ {
					x = x*6364136223846793005 + 1
				}
			}
			if x == 0 {
				fail("x")
			}
		}()
	}
	for i := 0; i < 20; i++ {
		runtime.GC()
	}
	wait.Wait()
}

func signals() {
	got := make(chan os.Signal, 10)
	signal.Notify(got, syscall.SIGUSR1, syscall.SIGHUP)
	for i := 0; i < 20; i++ {
		syscall.Kill(os.Getpid(), syscall.SIGUSR1)
		if s := <-got; s != syscall.SIGUSR1 {
			fail("signal", s)
		}
	}
	signal.Reset()
}

func nilPointer() {
	defer func() {
		if recover() == nil {
			fail("no panic")
		}
	}()
	var p *[10]int
	p[3]++
}

func children() {
	for i := 0; i < 5; i++ {
		out, err := exec.Command(os.Args[0], "child", fmt.Sprint(i)).CombinedOutput()
		if err == nil || err.(*exec.ExitError).ExitCode() != 40+i || string(out) != fmt.Sprintf("child %d\n", i) {
			fail("child", string(out), err)
		}
	}
}

func web() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fail("listen", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "hello %s", r.URL.Path) })
	go http.Serve(listener, mux)
	var wait sync.WaitGroup
	for i := 0; i < 20; i++ {
		wait.Add(1)
		go func(i int) {
			defer wait.Done()
			for j := 0; j < 10; j++ {
				answer, err := http.Get(fmt.Sprintf("http://%s/%d/%d", listener.Addr(), i, j))
				if err != nil {
					fail("get", err)
				}
				body, _ := io.ReadAll(answer.Body)
				answer.Body.Close()
				if string(body) != fmt.Sprintf("hello /%d/%d", i, j) {
					fail("body", string(body))
				}
			}
		}(i)
	}
	wait.Wait()
}

func main() {
	if len(os.Args) == 3 {
		fmt.Println("child", os.Args[2])
		os.Exit(40 + int(os.Args[2][0]-'0'))
	}
	goroutines()
	preemption()
	signals()
	nilPointer()
	children()
	web()
	fmt.Println("ok server")
}
