import org.codelibs.opensearch.runner.OpenSearchRunner;

/** One OpenSearch node on 127.0.0.1: arguments are its folder, its HTTP port and its transport port. */
public class Launch {
    public static void main(String[] arguments) throws Throwable {
        OpenSearchRunner runner = new OpenSearchRunner();
        try {
            runner.onBuild((number, settings) -> {
                settings.put("network.host", "127.0.0.1");
                settings.put("http.port", arguments[1]);
                settings.put("transport.port", arguments[2]);
                settings.put("discovery.type", "single-node");
                settings.put("cluster.routing.allocation.disk.threshold_enabled", false); // a full disk here is none of its business
            });
            runner.build(OpenSearchRunner.newConfigs().basePath(arguments[0]).numOfNode(1).clusterName("hft-otel"));
            while (!runner.isClosed()) {
                Thread.sleep(500);
            }
        } catch (Throwable error) { // the runner's own main swallows it
            error.printStackTrace();
            System.exit(1);
        }
    }
}
