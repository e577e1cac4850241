-- tasks_leave <n> <request>...: a session leaves, and of what these claims were granted nobody has heard. Answers whether it
-- was there.
local function verb()
  open({ 'session:' .. ARGV[5] })
  begin_queues()
  local session = find_session(tonumber(ARGV[5]))
  if session then
    for nth = 6, #ARGV do
      hand_back(session, ARGV[nth])
    end
    leave_fleet(session)
  end
  return { 'ok', session and 1 or 0 }
end
