// Writes the files beside it: what a Kafka 3.9 broker holds of producers of
// all ages. Run with the jars of kafka-clients 3.9.1 on the class path:
//
//	java -cp "$JARS" Write.java .
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import org.apache.kafka.common.compress.Compression;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.CompressionType;
import org.apache.kafka.common.record.MemoryRecordsBuilder;
import org.apache.kafka.common.record.MemoryRecords;
import org.apache.kafka.common.record.TimestampType;

public class Write {
    public static void main(String[] args) throws Exception {
        for (byte magic = 0; magic <= 2; magic++)
            for (CompressionType type : CompressionType.values())
                for (TimestampType time : new TimestampType[] {TimestampType.CREATE_TIME, TimestampType.LOG_APPEND_TIME}) {
                    if (magic < 2 && type == CompressionType.ZSTD || magic == 0 && time == TimestampType.LOG_APPEND_TIME)
                        continue;
                    MemoryRecordsBuilder b = MemoryRecords.builder(
                        ByteBuffer.allocate(1 << 20), magic, Compression.of(type).build(), time, 100, 1800000000000L);
                    for (int i = 0; i < 5; i++) {
                        byte[] key = i == 0 ? null : ("k" + i).getBytes();
                        byte[] value = i == 3 ? null : ("value " + i + ", ").repeat(20).getBytes();
                        long timestamp = magic == 0 ? -1 : 1790000000000L + i;
                        if (magic == 2)
                            b.append(timestamp, key, value, new Header[] {new RecordHeader("h", key)});
                        else
                            b.append(timestamp, key, value);
                    }
                    ByteBuffer out = b.build().buffer();
                    byte[] bytes = new byte[out.remaining()];
                    out.get(bytes);
                    String name = "v" + magic + "-" + type.name + (time == TimestampType.LOG_APPEND_TIME ? "-appendtime" : "");
                    Files.write(Path.of(args[0], name + ".bin"), bytes);
                }
    }
}
