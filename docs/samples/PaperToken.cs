using System;
using System.Security.Cryptography;
using System.Text;

/// <summary>
/// The address on a paper prescription, made by a HIS without asking anybody. .NET Framework 4 or newer, .NET, Mono.
/// <code>PaperToken.exe KEY INSTITUTION BRANCH BILL</code>
/// </summary>
public static class PaperToken
{
    public static string Of(string paperKey, string institution, string branch, string billId)
    {
        byte[] named = Encoding.UTF8.GetBytes(institution + "\n" + branch + "\n" + billId);
        byte[] purpose = Encoding.UTF8.GetBytes("zhenfu-paper-1\n");
        byte[] text = new byte[purpose.Length + named.Length];
        Buffer.BlockCopy(purpose, 0, text, 0, purpose.Length);
        Buffer.BlockCopy(named, 0, text, purpose.Length, named.Length);
        using (HMACSHA256 mac = new HMACSHA256(Encoding.UTF8.GetBytes(paperKey)))
        {
            byte[] seal = new byte[16];
            Buffer.BlockCopy(mac.ComputeHash(text), 0, seal, 0, seal.Length);
            return "h1." + Base64Url(named) + "." + Base64Url(seal);
        }
    }

    private static string Base64Url(byte[] data)
    {
        return Convert.ToBase64String(data).TrimEnd('=').Replace('+', '-').Replace('/', '_');
    }

    public static void Main(string[] arguments)
    {
        Console.WriteLine(Of(arguments[0], arguments[1], arguments[2], arguments[3]));
    }
}
