/* Compiled and deoptimised code, implicit null checks, threads, garbage, files, a child. */
import java.io.*;
import java.nio.file.*;
import java.security.*;
import java.util.*;
import java.util.concurrent.*;

public class Work {
    interface Shape { double area(); }
    record Square(double side) implements Shape { public double area() { return side * side; } }
    record Circle(double r) implements Shape { public double area() { return 3 * r * r; } }
    static class Box { Box next; int value; }

    static int nulls(Box[] boxes) {
        int caught = 0;
        for (Box box : boxes) {
            try { caught += box.next.value; } catch (NullPointerException e) { caught++; }
        }
        return caught;
    }

    static double areas(int n, boolean mixed) {
        double sum = 0;
        for (int i = 0; i < n; i++) {
            Shape shape = mixed && i % 2 == 1 ? new Circle(i) : new Square(i);
            sum += shape.area();
        }
        return sum;
    }

    static long sieve(int n) {
        boolean[] composite = new boolean[n];
        long found = 0;
        for (int i = 2; i < n; i++) {
            if (composite[i]) continue;
            found++;
            for (long j = 2L * i; j < n; j += i) composite[(int) j] = true;
        }
        return found;
    }

    public static void main(String[] args) throws Exception {
        Box[] boxes = new Box[2000];
        for (int i = 0; i < boxes.length; i++) {
            boxes[i] = new Box();
            if (i % 3 == 0) { boxes[i].next = new Box(); boxes[i].next.value = 2; }
        }
        int caught = 0;
        for (int round = 0; round < 300; round++) caught = nulls(boxes);
        System.out.println("nulls " + caught);
        System.out.println("areas " + areas(3_000_000, false) + " " + areas(3_000_000, true));
        ExecutorService pool = Executors.newFixedThreadPool(4);
        List<Future<Long>> results = new ArrayList<>();
        for (int i = 1; i <= 8; i++) { final int n = i * 500_000; results.add(pool.submit(() -> sieve(n))); }
        for (Future<Long> result : results) System.out.println("sieve " + result.get());
        pool.shutdown();
        Map<String, Integer> words = new TreeMap<>();
        for (int i = 0; i < 1_000_000; i++) words.merge("w" + i * 7919L % 1009, 1, Integer::sum);
        System.out.println("words " + words.size() + " " + words.get("w7"));
        Path file = Files.createTempFile("engine", "txt");
        try (Writer out = Files.newBufferedWriter(file)) { for (int i = 0; i < 50_000; i++) out.write(i + "\n"); }
        System.out.println("lines " + Files.lines(file).mapToLong(Long::parseLong).sum());
        Files.delete(file);
        KeyPairGenerator generator = KeyPairGenerator.getInstance("EC");
        generator.initialize(256);
        KeyPair pair = generator.generateKeyPair();
        Signature signature = Signature.getInstance("SHA256withECDSA");
        int good = 0;
        for (int i = 0; i < 50; i++) {
            signature.initSign(pair.getPrivate());
            signature.update((byte) i);
            byte[] made = signature.sign();
            signature.initVerify(pair.getPublic());
            signature.update((byte) i);
            if (signature.verify(made)) good++;
        }
        System.out.println("signatures " + good);
        Process child = new ProcessBuilder("/bin/echo", "hello").start();
        System.out.println("child " + new BufferedReader(new InputStreamReader(child.getInputStream())).readLine());
        try { overflow(0); } catch (StackOverflowError e) { System.out.println("stack overflow caught"); }
    }

    static int overflow(int depth) { return overflow(depth + 1) + 1; }
}
