// SPDX-License-Identifier: GPL-2.0-only
// Eight threads that fill and drop maps and arrays under the parallel collector.

import java.util.HashMap;
import java.util.Map;
import java.util.Random;

public class Heap {
    static long work(int seed) {
        Random random = new Random(seed);
        long sum = 0;
        for (int round = 0; round < 6; round++) {
            Map<Integer, byte[]> map = new HashMap<>();
            for (int i = 0; i < 20000; i++) {
                byte[] value = new byte[64 + random.nextInt(1024)];
                random.nextBytes(value);
                map.put(random.nextInt(30000), value);
                sum += value[0];
            }
            long[] large = new long[200000 + random.nextInt(400000)];
            for (int i = 0; i < large.length; i++) large[i] = i * sum;
            for (byte[] value : map.values()) sum += value.length + large[value.length];
        }
        return sum;
    }

    public static void main(String[] args) throws InterruptedException {
        long[] sums = new long[8];
        Thread[] threads = new Thread[sums.length];
        for (int i = 0; i < threads.length; i++) {
            int seed = i;
            threads[i] = new Thread(() -> sums[seed] = work(seed));
            threads[i].start();
        }
        long total = 0;
        for (int i = 0; i < threads.length; i++) {
            threads[i].join();
            total += sums[i];
        }
        System.out.println(total);
    }
}
