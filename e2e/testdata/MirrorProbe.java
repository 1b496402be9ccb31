import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.Map;
import java.util.TreeSet;
import org.apache.kafka.connect.mirror.MirrorClient;
import org.apache.kafka.connect.mirror.RemoteClusterUtils;

/**
 * Asks MirrorMaker 2's client what it makes of a cluster, and prints a line an
 * answer. Arguments: bootstrap servers, class of the replication policy, alias
 * of the source, groups.
 */
public class MirrorProbe {
    private static final Duration TIMEOUT = Duration.ofSeconds(20);

    public static void main(String[] args) throws Exception {
        String alias = args[2];
        Map<String, Object> properties = new HashMap<>();
        properties.put("bootstrap.servers", args[0]);
        properties.put("replication.policy.class", "org.apache.kafka.connect.mirror." + args[1]);
        properties.put("source.cluster.alias", alias); // IdentityReplicationPolicy cannot tell it from names

        say("upstreamClusters", RemoteClusterUtils.upstreamClusters(properties));
        say("replicationHops", RemoteClusterUtils.replicationHops(properties, alias));
        say("replicationHops nowhere", RemoteClusterUtils.replicationHops(properties, "nowhere"));
        say("heartbeatTopics", RemoteClusterUtils.heartbeatTopics(properties));
        say("checkpointTopics", RemoteClusterUtils.checkpointTopics(properties));
        try (MirrorClient client = new MirrorClient(properties)) {
            say("remoteTopics", client.remoteTopics(alias));
        }
        for (int i = 3; i < args.length; i++) {
            String group = args[i];
            RemoteClusterUtils.translateOffsets(properties, alias, group, TIMEOUT)
                .forEach((partition, offset) -> say("translateOffsets " + group + " " + partition, offset.offset()));
        }
    }

    private static void say(String question, Object answer) {
        if (answer instanceof Collection<?> names) {
            answer = String.join(" ", new TreeSet<>(names.stream().map(Object::toString).toList()));
        }
        System.out.println(question + ": " + answer);
    }
}
