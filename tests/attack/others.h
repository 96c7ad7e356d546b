/* Threads beside the one under attack. They are not stepped, and all the time they make calls, send each other signals whose handlers make calls
 * and sometimes jump out, install handlers anew, and create and end threads: the runtime's tables and lists change while the thread
 * under attack stands still in the middle of using them.
 */
#ifndef OTHERS_H
#define OTHERS_H

/* Starts three of them, and returns when each has been through everything. With `leader` a fourth is the calling process's first thread,
 * which is to call others_lead(). */
void others_start(int leader);
void others_lead(void);

/* Lets them come to an end; ends the program if a signal was lost, or doubled, or came with another value. */
void others_check(void);

#endif
