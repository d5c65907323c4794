import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.util.Arrays;
import java.util.Base64;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;

/**
 * The address on a paper prescription, made by a HIS without asking anybody. Java 8 or newer, no library needed.
 *
 * <pre>java PaperToken KEY INSTITUTION BRANCH BILL</pre>
 */
public final class PaperToken {
    private PaperToken() {}

    public static String of(String paperKey, String institution, String branch, String billId)
            throws GeneralSecurityException {
        byte[] named = (institution + "\n" + branch + "\n" + billId).getBytes(StandardCharsets.UTF_8);
        Mac mac = Mac.getInstance("HmacSHA256");
        mac.init(new SecretKeySpec(paperKey.getBytes(StandardCharsets.UTF_8), "HmacSHA256"));
        mac.update("zhenfu-paper-1\n".getBytes(StandardCharsets.UTF_8));
        byte[] seal = Arrays.copyOf(mac.doFinal(named), 16);
        Base64.Encoder base64url = Base64.getUrlEncoder().withoutPadding();
        return "h1." + base64url.encodeToString(named) + "." + base64url.encodeToString(seal);
    }

    public static void main(String[] arguments) throws GeneralSecurityException {
        System.out.println(of(arguments[0], arguments[1], arguments[2], arguments[3]));
    }
}
