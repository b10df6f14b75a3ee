// What the PostgreSQL JDBC driver does with an ordinary URL.
// Arguments: port, server name, CA file, certificate file, key file (PKCS #8 in DER), password.
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

public class Jdbc {
  public static void main(String[] said) throws Exception {
    String url = "jdbc:postgresql://" + said[1] + ":" + said[0] + "/billing?sslmode=verify-full&sslrootcert=" + said[2]
        + "&sslcert=" + said[3] + "&sslkey=" + said[4];
    ExecutorService pool = Executors.newFixedThreadPool(8);
    List<Future<Integer>> answers = new ArrayList<>();
    for (int n = 0; n < 40; n++) {
      int asked = n;
      Callable<Integer> ask = () -> {
        try (Connection connection = DriverManager.getConnection(url, "postgres", said[5]);
            PreparedStatement select = connection.prepareStatement("select ?::int")) {
          select.setInt(1, asked);
          ResultSet row = select.executeQuery();
          row.next();
          return row.getInt(1);
        }
      };
      answers.add(pool.submit(ask));
    }
    for (int n = 0; n < answers.size(); n++) {
      if (answers.get(n).get() != n) throw new IllegalStateException("answer " + n);
    }
    pool.shutdown();
    try (Connection connection = DriverManager.getConnection(url, "postgres", said[5]);
        Statement slow = connection.createStatement()) {
      slow.setQueryTimeout(1);
      slow.execute("select pg_sleep(60)");
      throw new IllegalStateException("it was not cancelled");
    } catch (SQLException cancelled) {
      if (!"57014".equals(cancelled.getSQLState())) throw cancelled;
    }
    String other = url.replace("/billing?", "/payroll?");
    try (Connection connection = DriverManager.getConnection(other, "postgres", said[5])) {
      throw new IllegalStateException("payroll is there");
    } catch (SQLException refused) {
      System.out.println("done " + refused.getSQLState() + " " + refused.getMessage());
    }
  }
}
