// Compiled and shared generic code, null references (signals of made code), tasks, code made at run time, garbage, files, a child.
using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.IO;
using System.Linq;
using System.Linq.Expressions;
using System.Threading;
using System.Threading.Tasks;

static class Work {
    class Node {
        public Node left, right;
        public Node(int depth) { if (depth > 0) { left = new Node(depth - 1); right = new Node(depth - 1); } }
        public int Count() { return 1 + (left == null ? 0 : left.Count()) + (right == null ? 0 : right.Count()); }
    }

    static int Sieve(int n) {
        var composite = new bool[n];
        int found = 0;
        for (int i = 2; i < n; i++) {
            if (composite[i]) continue;
            found++;
            for (long j = 2L * i; j < n; j += i) composite[j] = true;
        }
        return found;
    }

    static int Nulls(int n) {
        int caught = 0;
        for (int i = 0; i < n; i++) {
            Node node = i % 2 == 0 ? new Node(1) : null;
            try { caught += node.left == null ? 5 : 0; }
            catch (NullReferenceException) { caught++; }
            try { caught += 10 / (i % 2); }
            catch (DivideByZeroException) { caught += 2; }
        }
        return caught;
    }

    static int Made(int n) {
        int sum = 0;
        for (int i = 0; i < n; i++) {
            var x = Expression.Parameter(typeof(int), "x");
            sum += Expression.Lambda<Func<int, int>>(Expression.Multiply(x, Expression.Constant(i)), x).Compile()(3);
        }
        return sum;
    }

    static void Main() {
        Console.WriteLine("sieve " + Sieve(20000000) + " nodes " + Enumerable.Range(0, 60).Sum(i => new Node(14).Count()));
        Console.WriteLine("nulls " + Nulls(1000) + " made " + Made(300));
        var tasks = Enumerable.Range(1, 8).Select(i => Task.Run(() => Sieve(i * 100000))).ToArray();
        Task.WaitAll(tasks);
        Console.WriteLine("tasks " + string.Join(" ", tasks.Select(t => t.Result.ToString()).ToArray()));
        int total = 0;
        var threads = Enumerable.Range(0, 20).Select(i => new Thread(() => Interlocked.Add(ref total, i))).ToArray();
        foreach (var t in threads) t.Start();
        foreach (var t in threads) t.Join();
        Console.WriteLine("threads " + total);
        GC.Collect();
        string name = Path.GetTempFileName();
        using (var file = new StreamWriter(name)) for (int i = 0; i < 50000; i++) file.WriteLine(i);
        Console.WriteLine("lines " + File.ReadLines(name).Sum(line => long.Parse(line)));
        File.Delete(name);
        var start = new ProcessStartInfo("/bin/echo", "hello") { RedirectStandardOutput = true, UseShellExecute = false };
        using (var child = Process.Start(start)) {
            Console.WriteLine("child " + child.StandardOutput.ReadToEnd().Trim());
            child.WaitForExit();
            Console.WriteLine("status " + child.ExitCode);
        }
    }
}
