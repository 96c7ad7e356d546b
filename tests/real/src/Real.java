import java.nio.file.*;
import java.security.*;
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;

/** Signals, implicit null checks, stack overflow, collections by the GC, children: nothing printed differs from run to run. */
public class Real {
    int value = 1;

    static int read(Real r) {
        return r.value;
    }

    static int depth(int n) {
        return depth(n + 1) + 1;
    }

    public static void main(String[] arguments) throws Exception {
        int caught = 0, sum = 0;
        Real real = new Real();
        for (int i = 0; i < 300000; i++)
            sum += read(real);
        for (int i = 0; i < 20000; i++)
            try {
                sum += read(i % 3 == 0 ? null : real);
            } catch (NullPointerException e) {
                caught++;
            }
        System.out.println(sum + " " + caught);
        for (int i = 0; i < 5; i++)
            try {
                depth(0);
            } catch (StackOverflowError e) {
                System.out.println("overflow");
            }
        int zero = arguments.length;
        try {
            System.out.println(1 / zero);
        } catch (ArithmeticException e) {
            System.out.println(e.getMessage());
        }
        List<byte[]> kept = new ArrayList<>();
        for (int i = 0; i < 100000; i++) {
            byte[] b = new byte[10000];
            if (i % 100 == 0 && kept.size() < 1000)
                kept.add(b);
        }
        System.out.println("kept " + kept.size());
        try {
            List<byte[]> all = new ArrayList<>();
            for (;;)
                all.add(new byte[10 << 20]);
        } catch (OutOfMemoryError e) {
            System.out.println("out of memory");
        }
        ExecutorService pool = Executors.newFixedThreadPool(8);
        List<Future<Long>> futures = new ArrayList<>();
        for (int i = 0; i < 50; i++) {
            long n = i;
            futures.add(pool.submit(() -> LongStream.range(0, 10000).map(x -> x * n % 1009).sum()));
        }
        long total = 0;
        for (Future<Long> f : futures)
            total += f.get();
        pool.shutdown();
        System.out.println(total + " " + pool.awaitTermination(10, TimeUnit.SECONDS));
        CountDownLatch latch = new CountDownLatch(1);
        sun.misc.Signal.handle(new sun.misc.Signal("USR2"), s -> latch.countDown());
        sun.misc.Signal.raise(new sun.misc.Signal("USR2"));
        System.out.println("signal " + latch.await(10, TimeUnit.SECONDS));
        Process p = new ProcessBuilder("sh", "-c", "seq 3 | sort -r; exit 4").redirectErrorStream(true).start();
        System.out.print(new String(p.getInputStream().readAllBytes()));
        System.out.println(p.waitFor() + " " + ProcessHandle.current().info().command().get());
        KeyPairGenerator g = KeyPairGenerator.getInstance("EC");
        g.initialize(256);
        KeyPair pair = g.generateKeyPair();
        Signature s = Signature.getInstance("SHA256withECDSA");
        s.initSign(pair.getPrivate());
        s.update(new byte[100]);
        byte[] signed = s.sign();
        s.initVerify(pair.getPublic());
        s.update(new byte[100]);
        System.out.println(s.verify(signed));
        Path file = Files.writeString(Path.of("/tmp/java"), "x".repeat(100000));
        System.out.println(Files.size(file) + " " + System.getProperty("java.home"));
        Thread t = new Thread(() -> {
            try {
                Thread.sleep(100000);
            } catch (InterruptedException e) {
                System.out.println("interrupted");
            }
        });
        t.start();
        t.interrupt();
        t.join();
        System.exit(9);
    }
}
